"""Many models trained at once under vmap."""
