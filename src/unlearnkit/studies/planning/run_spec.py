"""Run specification: all that decides one run of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.precision import Precision
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.store import Status
from unlearnkit.studies.spec import Design

TUNED = "tuned"
"""Behind a method's id, and in the place of a preset: with the settings that were found."""

VERDICT = "verdict"
"""Name of a run's fact in the store: the verdict of its audit."""

WEIGHTS = "unlearned"
"""Name of a run's fact in the store: the digest of its unlearned model."""


def is_finished(outcome: tuple[Status, str] | None, retried: str | None = None) -> bool:
    """Return whether a run is done, or failed at another time than that of the retried failure."""
    if outcome is None or outcome[0] == "cancelled":
        return False
    return outcome[0] == "done" or outcome[1] != retried


@dataclass(frozen=True)
class RunSpec:
    """One run of a study: an original that is made to forget by one method, and audited."""

    key: str
    """Digest of every input; the run's key in the store."""

    case: str
    """As the study names it."""

    request: str
    """In words, or by the name that the case gives it."""

    label: str
    """The method with what the study sets on it: ``ssd``, ``ssd paper selection=5``."""

    method: str
    preset: str | None
    settings: Mapping[str, object]
    """Every hyper-parameter."""

    seed: int
    """Of the method."""

    original_seed: int
    oracles: int
    """How many; 0 where the tier needs none."""

    tier: AuditTier
    design: Design
    device: str
    precision: Precision
    mask: MaskSpec | None = None
    """How to find what may move; None where all may, or where the method finds it by itself."""

    chance: str = ""
    """Label of the runs that differ in one thing: what may move is drawn at random. Empty where
    nothing is chosen, or at random."""

    models: int = 0
    """Of each kind in a strong audit; 0 in others."""
