"""Statistics: intervals, bounds, multiple testing, resampling, power."""
