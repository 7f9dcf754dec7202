"""Long work: rows in the database, one worker thread, states that survive a crash."""
