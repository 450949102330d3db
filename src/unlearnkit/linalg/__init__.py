"""Gradients of rows, curvature, projections."""
