"""What to do after a verdict, with its estimated cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.verdicts_reference import enough_headroom
from unlearnkit.catalog import metrics
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import (
    CostComparison,
    Finding,
    MetricRow,
    NextStep,
    Verdict,
)
from unlearnkit.stats.intervals import t_half_width
from unlearnkit.stats.oracle_gap import (
    ENOUGH_FOR_EQUIVALENCE,
    ENOUGH_FOR_INTERVALS,
    equivalence_margin,
    gap,
    resolution,
)

MOST_ORACLES = 100
"""Retrained models beyond which more of them are no longer advised."""

STRONG_KINDS = 3
"""Kinds of models that the strong tier trains: originals, and two sets of retrained models."""

STEPS: dict[Verdict, tuple[str, ...]] = {
    Verdict.LEAKS: (
        "Do not use this model as if the data were removed. Run a stronger setting of the method or"
        " another one (--method auto chooses); if none passes, retrain (--method retrain).",
    ),
    Verdict.OVER_FORGOT: (
        "Weaken the method: fewer epochs or a smaller step. A model that is wrong on the forget set"
        " more often than a retrained one gives away which rows were removed.",
    ),
    Verdict.DISTINGUISHABLE: (
        "Try a method that repairs on the retain set, such as finetune or scrub; retrain if the"
        " model must pass as one that never saw the forget set.",
    ),
    Verdict.DAMAGED: (
        "Repair on the retain set: more epochs of it, a smaller step, or finetune after this"
        " method. The lost accuracy is in the summary.",
    ),
    Verdict.MEMORY_GONE: (
        "Keep this report as evidence that the memory of the records is gone. Where the model must"
        " also pass as one that never saw them, read the answer on likeness.",
    ),
    Verdict.MATCHES: (
        "The model may stand for a retrained one as far as these metrics go. Keep this report with"
        " it.",
    ),
}
"""What to do, by verdict. INCONCLUSIVE depends on what was missing: see ``inconclusive_steps``."""


@dataclass(frozen=True)
class AuditFacts:
    """What next steps depend on."""

    findings: Sequence[Finding]
    rows: Sequence[MetricRow]
    tier: AuditTier
    oracles: int
    cost: CostComparison
    models: int = 0
    """Models of each kind, of the strong tier."""

    recipe: RecipeCheck | None = None
    """Whether the recipe gives models like the original; None where there was no check."""

    def training_seconds(self, count: int) -> float | None:
        """Return about how long it takes to retrain some models; None where it is not known."""
        one = self.cost.retrain_seconds
        return None if one is None else one * count


def next_steps(audit: AuditFacts) -> tuple[NextStep, ...]:
    """Return what to do after an audit, for its headline.

    Args:
        audit: Findings, table, tier and costs.

    Returns:
        One to three steps, the first the most useful: to mend the recipe, where it gives other
        models than the one at hand.
    """
    if audit.recipe is not None and audit.recipe.outcome == "mismatch":
        after = next_steps(replace(audit, recipe=None))
        return (NextStep(action=audit.recipe.remedy), *after)
    verdict = audit.findings[0].verdict
    if verdict is Verdict.INCONCLUSIVE:
        return tuple(inconclusive_steps(audit))
    steps = tuple(NextStep(action=text) for text in STEPS[verdict])
    if verdict is Verdict.MATCHES and audit.tier != "strong":
        return (*steps, _strong(audit, "To test single records as well, which this audit did not,"))
    if audit.tier == "fast":
        return (*steps, _reference(audit, ENOUGH_FOR_EQUIVALENCE, "To decide,"))
    return steps


def inconclusive_steps(audit: AuditFacts) -> Iterator[NextStep]:
    """Yield what would decide an audit that could not.

    Args:
        audit: Findings, table, tier and costs.

    Yields:
        One step: more retrained models, more models of the strong tier, or another request.
    """
    if audit.tier == "fast":
        yield _reference(audit, ENOUGH_FOR_EQUIVALENCE, "To decide,")
    elif audit.tier == "strong":
        if audit.models < ENOUGH:
            yield _strong(audit, "To judge single records,")
        else:
            yield NextStep(
                action="Treat the model as not proven to match. To decide, audit with more models"
                f" (--ensemble-size {2 * audit.models}), or choose another method.",
                seconds=audit.training_seconds(STRONG_KINDS * audit.models),
            )
    elif audit.oracles < ENOUGH_FOR_EQUIVALENCE:
        yield _reference(audit, ENOUGH_FOR_EQUIVALENCE, "For intervals and equivalence,")
    elif not enough_headroom(audit.rows):
        yield _strong(
            audit,
            "This request is too easy: the original already behaves like a retrained model. To"
            " test single records,",
        )
    else:
        yield _more_oracles(audit)


def _more_oracles(audit: AuditFacts) -> NextStep:
    open_rows = {m for f in audit.findings if f.verdict is Verdict.INCONCLUSIVE for m in f.rows}
    needed = [oracles_to_decide(r) for r in audit.rows if r.metric in open_rows]
    known = [n for n in needed if n is not None]
    if known and len(known) == len(needed):
        count = max(*known, audit.oracles + 1)
        return _reference(audit, count, "To show equivalence, if gaps and spread stay as they are,")
    return _strong(
        audit,
        "A gap exceeds its margin, so more retrained models would not show equivalence. To attack"
        " single records,",
    )


def oracles_to_decide(row: MetricRow) -> int | None:
    """Return how many retrained models would show equivalence on one metric.

    Gap and spread are taken to stay as they are: ``|gap| + t(0.95, n-1) s / sqrt(n)`` must come
    below the margin.

    Args:
        row: A row of the table, with three oracles or more.

    Returns:
        The least n; None where no n up to 100 suffices, or nothing is known.
    """
    known = [v for v in row.oracle.values if v is not None] if row.oracle else []
    if row.estimate.value is None or row.metric not in metrics():
        return None
    m = metrics()[row.metric]
    least = resolution(row.unit, row.estimate.examples)
    apart = gap(row.estimate.value, known, least=least, distance=row.floor is not None)
    if apart is None:
        return None
    room = equivalence_margin(m.margin, m.unit, apart) - abs(apart.value)
    for count in range(max(len(known), ENOUGH_FOR_INTERVALS), MOST_ORACLES + 1):
        if t_half_width(count, 0.9) * apart.deviation < room:
            return count
    return None


def _reference(audit: AuditFacts, count: int, why: str) -> NextStep:
    return NextStep(
        action=f"{why} audit with {count} retrained models: --tier reference --oracles {count}.",
        seconds=audit.training_seconds(max(0, count - audit.oracles)),
    )


def _strong(audit: AuditFacts, why: str) -> NextStep:
    missing = STRONG_KINDS * (ENOUGH - audit.models)
    return NextStep(
        action=f"{why} audit with --tier strong --ensemble-size {ENOUGH}, which trains up to"
        f" {STRONG_KINDS * ENOUGH} models.",
        seconds=audit.training_seconds(missing),
    )
