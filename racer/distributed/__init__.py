"""Who runs where: environment workers, one learner, the channels between them, and their supervision.

Nothing here knows highways or algorithms. Workers are NumPy processes; importing this package imports no JAX.
"""
