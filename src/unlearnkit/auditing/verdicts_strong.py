"""Verdicts of a strong audit; ``verdict_rules`` lists the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from unlearnkit.auditing.sentences import NOT_PROOF
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL, StrongResults
from unlearnkit.auditing.verdict_metrics import list_first_three, metric_label
from unlearnkit.catalog import metrics
from unlearnkit.report.schema import Finding, MetricRow, Verdict
from unlearnkit.stats.oracle_gap import Judgement

ATTACKS = ("rmia_auc", "lira_auc")
"""The attack whose difference from retrained models a verdict may rest on: one or the other."""

KEPT_ATTACKS = ("rmia_auc_retained", "lira_auc_retained")

UTILITY = (
    "ensemble_accuracy_retain",
    "ensemble_accuracy_test",
    "ensemble_error_retain",
    "ensemble_error_test",
)
"""What must not be lost."""

KNOWN = ("ensemble_accuracy_forget", "ensemble_error_forget")

COMPARED = (*KNOWN, *UTILITY, *ATTACKS, *KEPT_ATTACKS, "ensemble_two_model_auc")
"""Rows on which equivalence with retraining must be shown; fixed before looking."""


def strong_findings(strong: StrongResults, own: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return every verdict that holds of a method, headline first.

    Args:
        strong: The table.
        own: What the model at hand shows by itself, beside a few retrained ones.

    Returns:
        At least one finding.
    """
    alone = [f.model_copy(update={"reason": f"the model at hand: {f.reason}"}) for f in own]
    found = [*_adverse(strong), *alone, *_open(strong)]
    if not found:
        rows = tuple(r.metric for r in strong.rows if r.metric in COMPARED)
        found = [
            Finding(
                verdict=Verdict.MATCHES,
                reason=f"{strong.models} models of the method are not told from as many retrained"
                f" ones, no forgotten row is exposed, and two one-sided tests pass on all"
                f" {len(rows)} compared rows",
                rows=("permutation_p", "epsilon_exposed", *rows),
            )
        ]
    order = list(Verdict)
    return tuple(sorted(found, key=lambda f: order.index(f.verdict)))


def strong_sentence(strong: StrongResults, found: tuple[Finding, ...]) -> str:
    """Return the verdict in a few sentences.

    Args:
        strong: The table.
        found: The findings, headline first.

    Returns:
        Headline, attack, what could have been seen, exposed rows, and the reservation.
    """
    parts = [f"{found[0].verdict}: {found[0].reason}."]
    attack = next(_there(strong, ATTACKS), None)
    if attack is not None and attack.estimate.value is not None:
        e, floor = attack.estimate, attack.oracle
        between = "" if e.low is None or e.high is None else f" [{e.low:.3f}, {e.high:.3f}]"
        beside = "" if floor is None or floor.mean is None else f" (retrained: {floor.mean:.3f})"
        parts.append(
            f"Against {strong.models} retrained models, an attacker who knows the recipe separated"
            f" this method's forgotten records from never-seen ones with AUC {e.value:.3f}{between}"
            f"{beside}."
        )
    if not math.isnan(strong.detectable):
        parts.append(
            f"The audit could have detected a shift of {strong.detectable:.2f} oracle deviations."
        )
    exposed = strong.row("epsilon_exposed")
    if exposed is not None and exposed.estimate.value is not None:
        parts.append(
            f"{strong.familiar + strong.strange} of {strong.forgotten} records remain individually"
            " exposed (ids attached)."
        )
    else:
        parts.append("Single records could not be judged with so few models.")
    return " ".join([*parts, NOT_PROOF])


def strong_limits(strong: StrongResults) -> tuple[str, ...]:
    """Return what a strong audit cannot show."""
    few: tuple[str, ...] = ()
    if strong.models < ENOUGH:
        few = (
            f"{strong.models} models of each kind are fewer than {ENOUGH}: single records cannot be"
            " judged, and nothing here can say that the method passes.",
        )
    seen = (
        ""
        if math.isnan(strong.detectable)
        else f" A shift of forgotten margins below {strong.detectable:.2f} oracle deviations would"
        " not have been seen."
    )
    return (
        *few,
        "An audit can refute that data are gone; it cannot prove it. Bounds on epsilon are lower"
        f" bounds: a record without one is not shown to be safe.{seen}",
        "The ensembles judge the method with these settings, on this request, with this recipe"
        " (design FULL): models of other seeds, not the one model at hand. That model was looked at"
        " alone, beside a few retrained ones, and its single records were not.",
        "Margins at the records themselves were looked at. What a model says about rows near them,"
        " and what its weights hold that no output shows, was not.",
        "The judged target is removal of these rows. Whatever else the rows taught, and rows like"
        " them that stay, is not removed by it.",
    )


def _adverse(s: StrongResults) -> Iterator[Finding]:
    exposed = s.row("epsilon_worst")
    worst = None if exposed is None else exposed.estimate.value
    total = s.forgotten
    if s.familiar:
        yield Finding(
            verdict=Verdict.LEAKS,
            reason=f"{s.familiar} of {total} forgotten rows look too familiar one by one: their"
            f" corrected bounds on epsilon are above 0, the largest of all rows {worst:.2f} nats",
            rows=("epsilon_worst", "epsilon_exposed"),
        )
    if s.strange:
        yield Finding(
            verdict=Verdict.OVER_FORGOT,
            reason=f"{s.strange} of {total} forgotten rows look stranger one by one than to"
            f" retrained models: their corrected bounds on epsilon are above 0, the largest of all"
            f" rows {worst:.2f} nats",
            rows=("epsilon_worst", "epsilon_exposed"),
        )
    by_attack = list(_attacked(s))
    yield from by_attack
    if not (s.familiar or s.strange or by_attack):
        yield from _told_apart(s)
    for kept in _there(s, KEPT_ATTACKS):
        if kept.gap_low is not None and kept.margin is not None and kept.gap_low > kept.margin:
            yield Finding(
                verdict=Verdict.DISTINGUISHABLE,
                reason=f"retained rows look more familiar than to retrained models: {_gap(kept)}",
                rows=(kept.metric,),
            )
    for row in _there(s, UTILITY):
        if row.gap_low is None or row.gap_high is None or row.margin is None:
            continue
        lost = -row.gap_high if metrics()[row.metric].higher_is_better else row.gap_low
        if lost > row.margin:
            yield Finding(
                verdict=Verdict.DAMAGED,
                reason=f"{_plain(row.metric)}: {_gap(row)}",
                rows=(row.metric,),
            )


def _attacked(s: StrongResults) -> Iterator[Finding]:
    """Yield what the attack with one threshold, and the answers themselves, show."""
    for row in _there(s, (*ATTACKS, *KNOWN)):
        if row.gap_low is None or row.gap_high is None or row.margin is None:
            continue
        metric = row.metric
        low, high = row.gap_low, row.gap_high
        if metrics()[metric].higher_is_better is False:
            low, high = -high, -low
        if low > row.margin:
            yield Finding(
                verdict=Verdict.LEAKS,
                reason=f"forgotten rows look too familiar: {_plain(metric)} {_gap(row)}",
                rows=(metric,),
            )
        elif high < -row.margin:
            yield Finding(
                verdict=Verdict.OVER_FORGOT,
                reason="forgotten rows look stranger than to retrained models:"
                f" {_plain(metric)} {_gap(row)}",
                rows=(metric,),
            )


def _told_apart(s: StrongResults) -> Iterator[Finding]:
    row, shift = s.row("permutation_p"), s.row("ensemble_margin_shift")
    if row is None or row.estimate.value is None or row.estimate.value >= LEVEL:
        return
    size = ""
    if shift is not None and shift.estimate.value is not None:
        size = f"; mean shift {shift.estimate.value:+.2f} oracle deviations"
    yield Finding(
        verdict=Verdict.DISTINGUISHABLE,
        reason=f"the method's models are told from retrained ones by their forgotten rows, p ="
        f" {row.estimate.value:.3g} by permutation{size}",
        rows=("permutation_p", "ensemble_margin_shift"),
    )


def _open(s: StrongResults) -> Iterator[Finding]:
    if s.distinct < s.models:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"only {s.distinct} of {s.models} unlearned models differ from each other"
            " (REUSE): copies show nothing of what other seeds would give",
        )
    if s.models < ENOUGH:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{s.models} models of each kind: {ENOUGH} are the least to judge single rows",
        )
    if not any(_there(s, ATTACKS)):
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="no never-seen rows: the attacks that compare with them could not run",
        )
    if s.hidden:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="this forget set cannot rank methods: the originals themselves, which forgot"
            " nothing, are not told from retrained models",
            rows=("permutation_p",),
        )
    open_rows = tuple(
        r.metric
        for r in s.rows
        if r.metric in COMPARED and r.judgement in {Judgement.NOT_SHOWN, Judgement.DIFFERENT}
    )
    if open_rows:
        shown = list_first_three([m.removeprefix("ensemble_") for m in open_rows])
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"equivalence with retraining is not shown on {shown}",
            rows=open_rows,
        )


def _there(s: StrongResults, metrics: Sequence[str]) -> Iterator[MetricRow]:
    """Yield the rows of those metrics that the table has."""
    return (row for m in metrics if (row := s.row(m)) is not None)


def _gap(row: MetricRow) -> str:
    mean = row.oracle.mean if row.oracle else None
    between = f" [{row.gap_low:+.3f}, {row.gap_high:+.3f}]"
    return f"{row.estimate.value:.3f}, retrained {mean:.3f}, gap {row.gap:+.3f}{between}"


def _plain(metric: str) -> str:
    return metric_label(metric.removeprefix("ensemble_"))
