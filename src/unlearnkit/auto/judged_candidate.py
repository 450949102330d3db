"""A candidate of ``auto`` that ran, and what was found of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlearnkit.auditing.fast_verdict import FastVerdict
from unlearnkit.auto.decision_table import Candidate
from unlearnkit.auto.selection import CandidateOutcome
from unlearnkit.core.settings import deep_merge
from unlearnkit.report.schema import Verdict
from unlearnkit.train.utility_loss import UtilityLoss
from unlearnkit.unlearning.run_method import Unlearned

LONGER = 2
"""How many times as long the best candidate is run once more where it lost accuracy."""


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate that ran, and what was found."""

    candidate: Candidate
    outcome: CandidateOutcome
    done: Unlearned
    wrong: tuple[str, ...]
    """Verdicts against it."""

    loss: UtilityLoss | None
    """On validation rows."""

    checked: bool = True
    """Whether the audit looked for damage; it does so at once where validation rows show none."""

    @property
    def rank(self) -> tuple[int, float]:
        """Return what orders models, best first: passed, passed with a loss, damaged, others.

        A model that was not looked at for damage counts as damaged: validation rows show a loss.
        """
        lost = 0.0 if self.loss is None else self.loss.lost
        if self.candidate.whole:
            return (0, 0.0)
        if self.outcome.passed and self.checked:
            return (int(self.lossy), lost)
        return (2, lost) if self.wrong in {(), (Verdict.DAMAGED,)} else (3, float(len(self.wrong)))

    @property
    def lossy(self) -> bool:
        """Return whether more than a point of accuracy went, and more than a standard error."""
        return self.loss is not None and self.loss.beyond(1)

    @property
    def lossy_beyond_chance(self) -> bool:
        """Return whether more than a point went, and more than two standard errors."""
        return self.loss is not None and self.loss.beyond(2)


def for_longer(tried: JudgedCandidate) -> Candidate | None:
    """Return a candidate with a longer run; None where its length is no share of retraining.

    Args:
        tried: The candidate, which ran.
    """
    run = getattr(tried.done.method, "run", None)
    share = getattr(run, "share", None)
    if share is None or getattr(run, "recipe", None) is not None:
        return None
    own = tried.candidate
    settings = deep_merge(own.settings, {"run": {"share": LONGER * share}})
    return Candidate(method=own.method, settings=settings, cost=LONGER * own.cost)


def outcome_of_audit(report: FastVerdict | None, wrong: Sequence[str], *, damage: bool) -> str:
    """Return in words what an audit found.

    Args:
        report: What it found; None where there are no forget rows.
        wrong: Verdicts against the model.
        damage: Whether it looked for damage.
    """
    if wrong:
        return f"fast audit: {', '.join(wrong)}"
    if report is None:
        return "not audited: there are no forget rows"
    other = sorted({str(f.verdict) for f in report.findings} - {Verdict.INCONCLUSIVE})
    seen = report.metrics
    blind = []
    if not seen & {"margin_auc"}:
        blind.append("no never-seen rows to compare with")
    if damage and not seen & {"accuracy_retain", "error_retain", "accuracy_test", "error_test"}:
        blind.append("no rows to check for damage")
    outcome = "the fast audit found no leak"
    outcome += (
        " and no damage" if damage else "; it did not test for damage, because the model is worse"
    )
    outcome += f" ({', '.join(blind)})" if blind else ""
    return f"{outcome}; it says {', '.join(other)}" if other else outcome
