"""Vector search: the ``VectorIndex`` protocol, exact scans, inverted lists, GPUs, ranking and re-ranking."""
