"""Tiers of an audit and sections of its report."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class AuditTier(StrEnum):
    """How much an audit compares."""

    FAST = "fast"
    """One model, no retraining."""

    REFERENCE = "reference"
    """One model compared with retrained models."""

    STRONG = "strong"
    """Many models of a method compared with as many retrained ones."""


class ReportSection(IntEnum):
    """Parts of a report's table, in their order."""

    REQUEST = 1
    DISTANCE = 2
    EXPOSURE = 3
    MEMBERSHIP = 4
    RETAINED = 5
    TWO_MODELS = 6
    RECOVERY = 7
    UTILITY = 8
    COST = 9
    COMPOSITE = 10
    ROBUSTNESS = 11
    """Attacks on what was forgotten; computed where an audit is called with robustness=True."""
