"""Difficulty scores of rows and of forget sets."""
