"""HTTP: routes translate requests to calls and results to answers, and nothing else."""
