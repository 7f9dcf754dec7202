"""Jobs: their states, and what an import makes of an upload."""
