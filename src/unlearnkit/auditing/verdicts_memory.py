"""Verdicts on memory: unlearned models against placebo models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from unlearnkit.auditing.strong.arm_comparison import CHANCE, MEMORY_MARGIN
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auditing.strong.results_table import StrongResults
from unlearnkit.metrics.ensembles import AUC_MARGIN
from unlearnkit.report.schema import ArmComparison, Estimate, Finding, Verdict
from unlearnkit.stats.oracle_gap import Judgement

SHIFT_MARGIN = math.sqrt(2) * NormalDist().inv_cdf(CHANCE + MEMORY_MARGIN)
"""Mean shift of margins, in deviations, that counts as no memory where single records cannot be
judged: 0.18, at which the AUC between two normal laws is what ``MEMORY_MARGIN`` allows."""

ROWS = ("memory",)
"""The comparison that these verdicts rest on; it is no row of the table."""


def memory_faults(s: StrongResults) -> Iterator[Finding]:
    """Yield LEAKS and OVER-FORGOT: records, or the whole forget set, that differ from placebo.

    Args:
        s: The table, with a placebo arm.

    Yields:
        At most one of either.
    """
    memory = s.arm("memory")
    assert memory is not None
    leaks, over = list(memory_evidence(memory, 1)), list(memory_evidence(memory, -1))
    if leaks:
        yield Finding(
            verdict=Verdict.LEAKS,
            reason=f"memory of the forget set remains: {'; '.join(leaks)}",
            rows=ROWS,
        )
    if over:
        yield Finding(
            verdict=Verdict.OVER_FORGOT,
            reason=f"the forget set is known worse than without it: {'; '.join(over)}",
            rows=ROWS,
        )


def memory_gone(s: StrongResults) -> Finding:
    """Return MEMORY GONE WITHIN LIMITS, or INCONCLUSIVE and why; of a table without faults.

    Args:
        s: The table, with a placebo arm.

    Returns:
        The finding.
    """
    memory = s.arm("memory")
    assert memory is not None
    why = ""
    if memory.familiar is None or memory.auc.value is None:
        why = f"{memory.note or 'there are too few models'}; at least {ENOUGH} of each kind"
    elif s.distinct < s.models:
        why = f"only {s.distinct} of {s.models} unlearned models differ from each other"
    elif s.hidden:
        why = "the originals, which forgot nothing, are not distinguished from retrained models"
    elif memory.judgement is not Judgement.EQUIVALENT:
        why = (
            f"U-LiRA AUC {estimate_words(memory.auc)} is not shown to be within {MEMORY_MARGIN:g}"
            f" of {CHANCE:g}, the value of equal sets"
        )
    if why:
        return Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"it is not shown that the memory of the forget set is gone: {why}",
            rows=ROWS,
        )
    return Finding(
        verdict=Verdict.MEMORY_GONE,
        reason=f"no record of {memory.records} is exposed against placebo models, which never saw"
        f" the forget set, and U-LiRA AUC {estimate_words(memory.auc)} is equivalent to {CHANCE:g},"
        f" the value of equal sets (margin {MEMORY_MARGIN:g})",
        rows=ROWS,
    )


def memory_evidence(memory: ArmComparison, sign: int) -> Iterator[str]:
    """Yield what shows that models know the forget set better (1) or worse (-1) than placebo."""
    records = memory.familiar if sign > 0 else memory.strange
    if records:
        bound = f", largest bound on epsilon of all {memory.worst:.2f} nats" if memory.worst else ""
        yield (
            f"{records} of {memory.records} records look too"
            f" {'familiar' if sign > 0 else 'strange'} against placebo models{bound}"
        )
    if sign * (memory.shift.value or 0.0) <= 0:
        return  # averages that move against the margins' own shift are no evidence
    if memory.judgement is Judgement.DIFFERENT and memory.familiar is not None:
        yield (
            f"U-LiRA AUC {estimate_words(memory.auc)} against placebo models"
            f" ({CHANCE:g} between equal sets)"
        )
    if memory.familiar is None and _beyond(memory.shift, SHIFT_MARGIN, sign):
        yield (
            f"mean shift of margins {estimate_words(memory.shift)} standard deviations of placebo"
            " models"
        )
    if _beyond(memory.attack, AUC_MARGIN, sign):
        yield f"membership AUC {estimate_words(memory.attack)} against placebo models"
    least = memory.accuracy_margin
    if least is not None and _beyond(memory.accuracy, least, sign):
        yield f"mean error on the forget set {estimate_words(memory.accuracy, -1)} against placebo"


def _beyond(gap: Estimate | None, margin: float, sign: int) -> bool:
    if gap is None or gap.low is None or gap.high is None:
        return False
    return gap.low > margin if sign > 0 else gap.high < -margin


def estimate_words(number: Estimate | None, sign: int = 0) -> str:
    """Return a number and its interval: ``0.561 [0.552, 0.571]``; turned round for -1."""
    if number is None or number.value is None:
        return "undefined"
    low, high = number.low, number.high
    values = [number.value, *(() if low is None or high is None else (low, high))]
    if sign < 0:
        values = [-values[0], *(-v for v in reversed(values[1:]))]
    first, *ends = (
        f"{v:+.3f}" if sign or "t over" in number.method else f"{v:.3f}" for v in values
    )
    return f"{first} [{', '.join(ends)}]" if ends else first
