"""Training: the one loop, and what is built on it."""
