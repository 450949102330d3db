"""Hyper-parameter search, and whether it helped."""
