"""Verdicts on memory: unlearned models against placebo models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from unlearnkit.auditing.strong.arm_comparison import CHANCE, MEMORY_MARGIN
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.strong.results_table import StrongResults
from unlearnkit.auditing.verdict_evaluation import Reason
from unlearnkit.metrics.ensembles import AUC_MARGIN
from unlearnkit.report.schema import ArmComparison, Estimate
from unlearnkit.stats.oracle_gap import Judgement

SHIFT_MARGIN = math.sqrt(2) * NormalDist().inv_cdf(CHANCE + MEMORY_MARGIN)
"""Mean shift of margins, in deviations, that counts as no memory where single records cannot be
judged: 0.18, at which the AUC between two normal laws is what ``MEMORY_MARGIN`` allows."""

ROWS = ("memory",)
"""The comparison that these verdicts rest on; it is no row of the table."""


def memory_remains(memory: ArmComparison) -> Iterator[Reason]:
    """Yield at most one reason: the forget set looks too familiar against placebo models."""
    evidence = list(memory_evidence(memory, 1))
    if evidence:
        yield Reason(f"memory of the forget set remains: {'; '.join(evidence)}", ROWS)


def memory_below_placebo(memory: ArmComparison) -> Iterator[Reason]:
    """Yield at most one reason: the forget set looks too strange against placebo models."""
    evidence = list(memory_evidence(memory, -1))
    if evidence:
        yield Reason(f"the forget set is known worse than without it: {'; '.join(evidence)}", ROWS)


def memory_not_shown_gone(s: StrongResults, memory: ArmComparison) -> Iterator[Reason]:
    """Yield at most one reason why a table without faults does not show that memory is gone."""
    if memory.familiar is None or memory.auc.value is None:
        why = f"{memory.note or 'there are too few models'}; at least {ENOUGH} of each kind"
    elif s.distinct < s.models:
        why = f"only {s.distinct} of {s.models} unlearned models differ from each other"
    elif s.originals_indistinguishable:
        why = "the originals, which forgot nothing, are not distinguished from retrained models"
    elif memory.judgement is not Judgement.EQUIVALENT:
        why = (
            f"U-LiRA AUC {estimate_words(memory.auc)} is not shown to be within {MEMORY_MARGIN:g}"
            f" of {CHANCE:g}, the value of equal sets"
        )
    else:
        return
    yield Reason(f"it is not shown that the memory of the forget set is gone: {why}", ROWS)


def memory_gone(s: StrongResults, memory: ArmComparison) -> Iterator[Reason]:
    """Yield at most one reason: a table without faults shows that memory is gone."""
    if not any(memory_not_shown_gone(s, memory)):
        yield Reason(
            f"no record of {memory.records} is exposed against placebo models, which never saw"
            f" the forget set, and U-LiRA AUC {estimate_words(memory.auc)} is equivalent to"
            f" {CHANCE:g}, the value of equal sets (margin {MEMORY_MARGIN:g})",
            ROWS,
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
