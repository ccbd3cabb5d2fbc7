"""Pictures of runs and evaluations. matplotlib is imported only when something is drawn."""
