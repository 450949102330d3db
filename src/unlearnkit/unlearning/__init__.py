"""Running a method on a copy of a model, under checks."""
