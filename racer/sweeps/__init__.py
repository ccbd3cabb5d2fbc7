"""Many trainings as one thing: populations that learn side by side inside one compilation."""
