"""Versions of the package and of its arithmetic."""

__version__ = "0.1.0"

NUMERICS = 4
"""Bump when the arithmetic of training changes: old cache entries then no longer match."""

MEASURES = 4
"""Bump when a method or a metric of this package computes other numbers: results of studies that
were kept before then no longer match."""
