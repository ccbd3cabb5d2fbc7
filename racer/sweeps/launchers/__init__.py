"""Who runs the jobs of a manifest: this machine, a SLURM array, onager, Ray. Each runs one job by its index."""
