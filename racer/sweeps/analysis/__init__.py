"""What a study's numbers say: statistics with intervals, tables, tensors, pictures."""
