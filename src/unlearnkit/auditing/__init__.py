"""From models to a report: what to measure, and what may be said of it."""
