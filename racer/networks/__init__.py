"""Flax modules and the distributions they describe. Nothing here knows of losses or of environments."""
