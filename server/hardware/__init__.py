"""Hardware detection: CPU features, CPU quotas and CUDA."""
