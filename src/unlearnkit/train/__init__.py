"""The one training loop, and what is built on it."""
