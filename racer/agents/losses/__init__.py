"""The algorithms' losses as pure functions of arrays, each with the equation that it is."""
