"""Published tables, and how they are reproduced."""
