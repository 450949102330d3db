"""Selection: which candidate was chosen, why, and at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.unlearning.run_method import Unlearned


class CandidateOutcome(FrozenModel):
    """The outcome of one candidate."""

    candidate: str
    """The method with its settings."""

    ran: bool
    """Whether it ran to its end."""

    passed: bool
    outcome: str
    """The result of the fast audit, or why the candidate did not run."""

    work: int = 0
    """The candidate's row passes, a backward pass counted as two."""

    audit: int = 0
    """Its audit's."""

    lost: float | None = None
    """Accuracy lost on validation rows of kept classes, against the original, as a fraction;
    for real targets the error gained, in deviations of the targets. None where it is not known."""


class Selection(FrozenModel):
    """What ``auto`` chose, and why."""

    candidate: str
    """The method with its settings."""

    line: str
    """Of the decision table."""

    why: str
    """In one line."""

    kind: str
    share: float | None
    atypicality: float | None
    budget: float
    cost: float | None
    """Cost of all that was tried, audits included, in row passes, as a share of retraining's; None
    where that is not known."""

    checks: float | None = None
    """Cost of the look and of all audits, as a share of what all candidates cost; None where none
    ran."""

    processor_seconds: float = 0.0
    """Processor time of all of it; on an accelerator the time by the wall."""

    processor_cost: float | None = None
    """The same as a share of retraining's, which is estimated from a few steps; None where the case
    has no factory, no recipe of its own or no retained rows."""

    audited: bool
    passed: bool
    """Whether the returned model passed the fast audit, or could not be audited. False: it is
    damaged, and the budget did not allow for better."""

    lost: float | None = None
    """As of the candidate."""

    candidates: tuple[CandidateOutcome, ...]


@dataclass(frozen=True)
class SelectedModel(Unlearned):
    """The model that ``auto`` returns; ``method`` made it, ``cost`` counts all tries."""

    choice: Selection


class AutoFailedError(UnlearnkitError):
    """All that could run leaks or changed nothing; ``best`` is to be inspected, not to be used."""

    def __init__(self, message: str, best: SelectedModel) -> None:
        super().__init__(message)
        self.best = best
