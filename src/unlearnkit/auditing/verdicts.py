"""What may be said: every verdict that holds, in order of precedence.

The rules are listed in ``verdict_rules`` and in docs/verdicts.md. LEAKS: forgotten rows look too
familiar. OVER-FORGOT: the same evidence below the oracle. DISTINGUISHABLE: neither, but the model
lies outside the oracles' own spread. DAMAGED: what had to stay was lost. INCONCLUSIVE: an interval
straddles a margin, there is no headroom, or a cheap audit found nothing. MATCHES: two one-sided
tests pass on every compared row, with at least five oracles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unlearnkit.auditing.verdict_metrics import (
    ATTACKS,
    COMPARED,
    KNOWN,
    OUTSIDE,
    UTILITY,
    attack_of,
    format_estimate,
    list_first_three,
    metric_label,
)
from unlearnkit.auditing.verdicts_fast import FastAudit, fast_findings
from unlearnkit.catalog import metrics
from unlearnkit.report.phrases import gap_texts
from unlearnkit.report.schema import Finding, MetricRow, Verdict
from unlearnkit.stats.oracle_gap import (
    ENOUGH_FOR_EQUIVALENCE,
    ENOUGH_FOR_INTERVALS,
    Gap,
    Judgement,
    closed_share,
    gap,
    outlying,
    resolution,
)

PROBE = "head_probe"
"""What the features below the last layer hold of classes that went whole."""

HALF = 0.5
"""Share of the original's distance to the oracles that features must have closed at least."""

OUTSIDE_LEVEL = 0.01
"""Level at which a model is no further oracle, all tests of it together (Bonferroni)."""

HEADROOM = 3.0
"""Oracle deviations between original and oracle below which a metric cannot rank methods."""


@dataclass(frozen=True)
class VerdictInputs:
    """What verdicts rest on beside the table."""

    rows: Sequence[MetricRow]
    gone: bool
    """Whether whole classes had to go: no kept row has them."""

    head_only: bool
    """Whether every parameter below the last layer equals the original's, bit for bit."""

    unchanged: bool
    """Whether the model is the original, bit for bit."""

    oracles: int


def judge(facts: VerdictInputs) -> tuple[Finding, ...]:
    """Return every verdict of a reference audit that holds, headline first.

    Args:
        facts: The table, and what else is known.

    Returns:
        At least one finding.
    """
    table = {r.metric: r for r in facts.rows}
    return _in_order(list(_reference(table, facts)) or [_pass(table)])


def findings_of_fast_audit(audit: FastAudit) -> tuple[Finding, ...]:
    """Return every verdict of a fast audit that holds, headline first.

    Args:
        audit: The table, and what the tests need.

    Returns:
        At least one finding.
    """
    return _in_order(list(fast_findings(audit)) or [_NOTHING_FOUND])


def _in_order(found: Iterable[Finding]) -> tuple[Finding, ...]:
    order = list(Verdict)
    return tuple(sorted(found, key=lambda f: order.index(f.verdict)))


_NOTHING_FOUND = Finding(
    verdict=Verdict.INCONCLUSIVE,
    reason="Fast tests passed. They cannot detect single memorised records",
)


def _reference(table: dict[str, MetricRow], facts: VerdictInputs) -> Iterator[Finding]:
    if facts.oracles < ENOUGH_FOR_INTERVALS:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{facts.oracles} retrained model{'s' if facts.oracles > 1 else ''} give no"
            f" intervals; at least {ENOUGH_FOR_INTERVALS} are needed",
        )
        return
    compared = _compared(table)
    familiar = [*_familiarity(table, compared, gone=facts.gone), *_held_in_features(table)]
    yield from familiar
    if not familiar:
        yield from _outside(table)
    yield from _damage(table, compared)
    if facts.unchanged or facts.head_only:
        what = "no weight has changed" if facts.unchanged else "only the last layer was changed"
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{what}: the features below it are those of the original, so the forget set"
            " can be learned again quickly; equal predictions do not show that it is removed",
            rows=("edit_size",) if "edit_size" in table else (),
        )
    if facts.oracles < ENOUGH_FOR_EQUIVALENCE:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{facts.oracles} retrained models are too few to say that a model matches"
            f" retraining; at least {ENOUGH_FOR_EQUIVALENCE} are needed",
        )
    if not enough_headroom(facts.rows):
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="this forget set cannot tell methods apart: on no metric does the original"
            f" differ from retraining by {HEADROOM:g} standard deviations",
        )
    open_rows = tuple(m for m in compared if table[m].judgement is not Judgement.EQUIVALENT)
    if open_rows:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"equivalence with retraining is not shown on {list_first_three(open_rows)}: the"
            " interval of the gap does not lie inside the margin",
            rows=open_rows,
        )


def _familiarity(
    table: dict[str, MetricRow], compared: dict[str, Gap], *, gone: bool
) -> Iterator[Finding]:
    for metric in (*KNOWN, *ATTACKS):
        if metric not in compared:
            continue
        row, g = table[metric], compared[metric]
        sign = -1.0 if metrics()[metric].higher_is_better is False else 1.0
        low, high = sorted((sign * g.low, sign * g.high))
        margin = row.margin
        assert margin is not None
        text = _beside_retrained(row, g)
        if low > margin:
            yield Finding(
                verdict=Verdict.LEAKS,
                reason=f"the model knows the forget set better than retrained models do: {text}",
                rows=(metric,),
            )
        elif high < -margin and not (gone and metric in ATTACKS):
            # Of classes that go whole an oracle knows no row: there is no less than that.
            yield Finding(
                verdict=Verdict.OVER_FORGOT,
                reason=f"the model knows the forget set worse than retrained models do: {text}",
                rows=(metric,),
            )


def _held_in_features(table: dict[str, MetricRow]) -> Iterator[Finding]:
    """Yield that features hold a class: like no oracle's, more than random ones, half as before."""
    row, bare = table.get(PROBE), table.get(f"{PROBE}_untrained")
    if row is None or row.oracle is None or row.oracle.mean is None or row.original is None:
        return
    value, before = row.estimate.value, row.original.value
    if value is None or before is None or value >= row.oracle.mean:
        return
    known = [v for v in row.oracle.values if v is not None]
    p, share = outlying(value, known), closed_share(value, before, known)
    random = None if bare is None else bare.estimate.value
    if p is None or p >= OUTSIDE_LEVEL or share is None or share >= HALF:
        return
    if random is not None and value >= random:
        return
    beside = "" if random is None else f", never trained {random:.3f}"
    yield Finding(
        verdict=Verdict.LEAKS,
        reason="the features below the last layer still hold the forgotten classes: a new head on"
        f" them has error {value:.3f}, retrained {row.oracle.mean:.3f}{beside} (p = {p:.2g} by a"
        f" model-based test), {max(share, 0.0):.0%} of the original's distance closed",
        rows=(PROBE,) if bare is None else (PROBE, bare.metric),
    )


def _outside(table: dict[str, MetricRow]) -> Iterator[Finding]:
    tests = sum(m in table for m in OUTSIDE)
    for metric in OUTSIDE:
        row = table.get(metric)
        if row is None or row.estimate.value is None or row.oracle is None:
            continue
        values = [v for v in row.oracle.values if v is not None]
        distance = row.floor is not None
        p = outlying(row.estimate.value, values, distance=distance)
        if p is None or p >= OUTSIDE_LEVEL / tests or (distance and (row.gap or 0.0) <= 0):
            continue
        closed = (
            "" if row.closed is None else f", {row.closed:.0%} of the original's distance closed"
        )
        yield Finding(
            verdict=Verdict.DISTINGUISHABLE,
            reason=f"farther from retraining than retrained models are from each other:"
            f" {metric_label(metric)}"
            f" {row.estimate.value:.3g}, retrained {row.oracle.mean:.3g}"
            f"{'' if row.z is None else f' (z = {row.z:.1f})'}, p = {p:.2g} by a model-based"
            f" test{closed}",
            rows=(metric,),
        )


def _damage(table: dict[str, MetricRow], compared: dict[str, Gap]) -> Iterator[Finding]:
    for metric in UTILITY:
        if metric not in compared:
            continue
        row, g = table[metric], compared[metric]
        margin = row.margin
        assert margin is not None
        lost = g.high < -margin if metrics()[metric].higher_is_better else g.low > margin
        if lost:
            yield Finding(
                verdict=Verdict.DAMAGED,
                reason=_beside_retrained(row, g),
                rows=(metric,),
            )


def _pass(table: dict[str, MetricRow]) -> Finding:
    rows = tuple(_compared(table))
    return Finding(
        verdict=Verdict.MATCHES,
        reason=f"equivalence with retraining is shown on all {len(rows)} compared metrics",
        rows=rows,
    )


def _compared(table: dict[str, MetricRow]) -> dict[str, Gap]:
    """Return the gaps on which equivalence must be shown: of attacks, that of one alone."""
    attack = attack_of(table.values())
    others = set(ATTACKS) - ({attack.metric} if attack else set())
    gaps = {m: _gap(r) for m, r in table.items() if m not in others}
    return {m: g for m, g in gaps.items() if g is not None}


def enough_headroom(rows: Iterable[MetricRow]) -> bool:
    """Return whether any compared metric tells the original from the oracles."""
    return any(h >= HEADROOM for r in rows if (h := headroom(r)) is not None)


def headroom(row: MetricRow) -> float | None:
    """Return how far the original is from the oracles, in oracle deviations; None if unknown."""
    if _gap(row) is None or row.original is None or row.original.value is None:
        return None
    g = _gap_of(row, row.original.value)
    if g is None:
        return None
    if g.deviation == 0:
        return 0.0 if g.value == 0 else float("inf")
    return abs(g.value) / g.deviation


def _gap(row: MetricRow) -> Gap | None:
    if row.metric not in COMPARED or row.oracle is None or row.estimate.value is None:
        return None
    return _gap_of(row, row.estimate.value)


def _gap_of(row: MetricRow, value: float) -> Gap | None:
    assert row.oracle is not None
    known = [v for v in row.oracle.values if v is not None]
    least = resolution(row.unit, row.estimate.examples)
    return gap(value, known, least=least, distance=row.floor is not None)


def _beside_retrained(row: MetricRow, g: Gap) -> str:
    gap = " ".join(gap_texts(row, 3))
    return f"{metric_label(row.metric)} {format_estimate(row)}, retrained {g.mean:.3f}, gap {gap}"
