"""How sure a number is: intervals, bounds, many tests at once, resampling, power."""
