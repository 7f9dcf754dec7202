"""Background jobs: their table, the runner, and one handler for each kind of job."""
