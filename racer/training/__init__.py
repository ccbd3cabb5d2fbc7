"""Loops that join environments, replay and agents into a run that can be stopped, resumed and evaluated."""
