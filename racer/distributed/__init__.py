"""Who runs where: environment workers, one learner, the pools that join them, and their supervision.

Nothing here knows a world or an algorithm. Workers are NumPy programs; importing this package imports no JAX.
"""
