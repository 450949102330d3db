"""Rows of a report's tables, as values."""

from __future__ import annotations

from typing import Literal

from unlearnkit.core.checked import FrozenModel
from unlearnkit.stats.oracle_gap import Judgement


class Value(FrozenModel):
    """Frozen, and without fields that nobody knows."""


class Estimate(Value):
    """A number with its uncertainty; None where it is undefined, and then the note says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the 95 % interval was made: Clopper-Pearson, DeLong, normal, none."""

    examples: int = 0
    """Rows behind the number."""

    note: str = ""


class OracleValue(Value):
    """The same metric, with each oracle in the place of the unlearned model."""

    mean: float | None
    sd: float | None
    """Standard deviation over oracles; None for fewer than two."""

    values: tuple[float | None, ...]


class MetricRow(Value):
    """One line of the table."""

    metric: str
    family: str
    goal: str
    """``high``, ``low``, ``match retraining`` or ``descriptive``."""

    ideal: float | None
    """The best value: a constant of the metric, or the oracle's mean."""

    unit: str
    path: Literal["exact", "compat"]
    section: int
    """Where it stands in the order of the audit, 1 to 10."""

    estimate: Estimate
    original: Estimate | None
    """The same metric with the original model in the place of the unlearned one."""

    oracle: OracleValue | None
    gap: float | None
    """Estimate minus the oracles' mean."""

    gap_low: float | None = None
    gap_high: float | None = None
    z: float | None
    """Gap in oracle standard deviations; None for fewer than three oracles."""

    floor: float | None = None
    """For distances to the oracle: the oracle-oracle distance."""

    closed: float | None = None
    """For distances to the oracle: the share of the original's distance that was closed."""

    margin: float | None = None
    """Largest gap that counts as none; None where the gap is not judged."""

    judgement: Judgement
    """Of the gap to the oracles."""

    models: int
    """How many oracles stand behind the comparison."""

    doc: str
    role: str = "other"
    """Which question of the audit it answers: ``knowledge``, ``generalization``, ``utility``,
    ``attack``, ``distance`` or ``other``."""


class MarginSample(Value):
    """Margins of one model on one split, thinned for drawing."""

    who: str
    split: str
    values: tuple[float, ...]
