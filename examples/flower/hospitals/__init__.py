"""A client leaves a federation of ten."""
