"""Tasks: what outputs mean, one file a kind of problem."""
