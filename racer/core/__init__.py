"""Config, checkpoints, metrics and errors. Nothing here knows of driving or of JAX."""
