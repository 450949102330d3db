"""What may be said of one model without retrained ones: faults, and never that it passes."""

from __future__ import annotations

from collections.abc import Iterator

from unlearnkit.auditing.which import MATCHED, UTILITY, attack_of, plain, valued
from unlearnkit.report.model import Finding, Row, Verdict

FAST_MARGIN = 0.02
"""Margin where there is no oracle: two points of accuracy, 0.02 of AUC."""

LESSON = "relearn_gap"
"""The attack without oracles: whether forget rows are learned faster than fresh ones."""


def fast_findings(
    table: dict[str, Row], *, gone: bool, unchanged: bool, owner: bool
) -> Iterator[Finding]:
    """Yield the faults that show without retrained models.

    Args:
        table: The rows, by metric.
        gone: Whether whole classes had to go.
        unchanged: Whether the model is the original.
        owner: Whether the rows of an owner had to go, which are like no others.

    Yields:
        What was found, if anything.
    """
    known = table.get("accuracy_forget")
    if gone and known is not None and (known.estimate.low or 0.0) > FAST_MARGIN:
        yield Finding(
            verdict=Verdict.LEAKS,
            reason="forgotten classes are still recognised: accuracy on forget rows"
            f" {valued(known)}, and a model that never saw a class cannot name it",
            rows=(known.metric,),
        )
    yield from _attack(table, owner=owner)
    yield from _lesson(table)
    for row in (table[m] for m in UTILITY if m in table):
        before = row.original
        now = row.estimate
        if before is None or before.value is None or now.value is None or now.high is None:
            continue
        rate = row.metric.startswith("accuracy")
        least = FAST_MARGIN if rate else FAST_MARGIN * before.value
        lost = before.value - now.high if rate else (now.low or 0.0) - before.value
        if lost > least:
            yield Finding(
                verdict=Verdict.DAMAGED,
                reason=f"{plain(row.metric)} went from {before.value:.3f} to {valued(row)}",
                rows=(row.metric,),
            )
    if unchanged:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="the model is the original: no weight has changed",
        )


def _attack(table: dict[str, Row], *, owner: bool) -> Iterator[Finding]:
    attack = attack_of(table.values())
    if attack is None or attack.estimate.low is None or attack.estimate.high is None:
        return
    before = attack.original
    if before is not None and before.high is not None and before.high < 0.5:
        verdict = Verdict.INCONCLUSIVE
        reason = (
            "the original, which was trained on them, already knew the forget rows less than"
            f" never-seen rows (AUC {before.value:.3f}): they are not drawn alike, and this attack"
            " says nothing without oracles"
        )
    elif owner and attack.metric in MATCHED:
        if attack.estimate.low <= 0.5 <= attack.estimate.high:
            return
        verdict = Verdict.INCONCLUSIVE
        reason = (
            "forget rows are answered otherwise than never-seen rows of like target"
            f" (AUC {valued(attack)}), but rows of one owner may be easier or harder for any"
            " model: this attack says nothing without oracles"
        )
    elif attack.estimate.low > 0.5 + FAST_MARGIN:
        verdict = Verdict.LEAKS
        reason = f"forget rows look more familiar than never-seen rows: AUC {valued(attack)}"
    elif attack.estimate.high < 0.5 - FAST_MARGIN:
        verdict = Verdict.OVER_FORGOT
        reason = f"forget rows look less familiar than never-seen rows: AUC {valued(attack)}"
    else:
        return
    yield Finding(verdict=verdict, reason=reason, rows=(attack.metric,))


def _lesson(table: dict[str, Row]) -> Iterator[Finding]:
    row, bare = table.get(LESSON), table.get(f"{LESSON}_untrained")
    if row is None or row.estimate.low is None or row.estimate.low <= 0:
        return
    if bare is not None and bare.estimate.low is not None and bare.estimate.low > 0:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="a network that was never trained learns the forget rows faster than never-seen"
            " rows too: they are not drawn alike, and relearning says nothing without oracles",
            rows=(row.metric, bare.metric),
        )
        return
    yield Finding(
        verdict=Verdict.LEAKS,
        reason="forget rows are learned again faster than fresh rows: a mean training loss lower by"
        f" {valued(row)}; right if they were drawn at random",
        rows=(row.metric,),
    )
