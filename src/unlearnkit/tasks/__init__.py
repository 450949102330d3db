"""What a model's outputs mean, one file a kind of problem."""
