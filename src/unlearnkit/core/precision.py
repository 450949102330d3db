"""Numeric precision of a run."""

from typing import Literal

Precision = Literal["fp32", "bf16"]
"""``bf16``: models run in autocast."""
