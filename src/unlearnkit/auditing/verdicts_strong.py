"""Verdicts of a strong audit; ``verdict_rules`` lists the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from unlearnkit.auditing.sentences import NOT_PROOF, attack_sentence
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL, StrongResults
from unlearnkit.auditing.verdict_metrics import list_first_three, metric_label
from unlearnkit.auditing.verdicts import OTHER_RECIPE, PROBE
from unlearnkit.auditing.verdicts_memory import memory_faults, memory_gone
from unlearnkit.catalog import metrics
from unlearnkit.report.phrases import gap_texts
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import Finding, MetricRow, Verdict, as_sentence
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


def strong_findings(
    strong: StrongResults, own: Sequence[Finding] = (), recipe: RecipeCheck | None = None
) -> tuple[Finding, ...]:
    """Return every verdict that holds of a method, headline first.

    Args:
        strong: The table.
        own: What the model at hand shows by itself, next to a few retrained ones.
        recipe: Whether the recipe gives models like the original; None where there was no check.

    Returns:
        At least one finding.
    """
    memory = strong.arm("memory") is not None
    faults = list(memory_faults(strong) if memory else _faults_without_placebo(strong))
    if not faults:
        faults += _told_apart(strong)
    alone = [_of_one_model(f, memory=memory) for f in own]
    found = [*faults, *_kept(strong), *_damaged(strong), *alone]
    found += [*_other_recipe(recipe), *_open(strong)]
    extra = [memory_gone(strong)] if memory and not _blamed(found) else []
    if any(True for _ in _other_recipe(recipe)):
        extra = [f.model_copy(update={"verdict": Verdict.INCONCLUSIVE}) for f in extra]
    if not found:
        rows = tuple(r.metric for r in strong.rows if r.metric in COMPARED)
        found = [
            Finding(
                verdict=Verdict.MATCHES,
                reason=f"attacks do not tell {strong.models} unlearned from as many retrained"
                f" models, no single record is exposed, and equivalence is shown on all {len(rows)}"
                " compared metrics",
                rows=("permutation_p", "epsilon_exposed", *rows),
            )
        ]
    order = list(Verdict)
    return tuple(sorted([*extra, *found], key=lambda f: order.index(f.verdict)))


def strong_remarks(strong: StrongResults) -> tuple[str, ...]:
    """Return the sentences that follow the reason: attack, power, exposed records, reservation."""
    parts = []
    attack = next(_there(strong, ATTACKS), None)
    if attack is not None and attack.estimate.value is not None:
        parts.append(attack_sentence(attack))
    if not math.isnan(strong.detectable):
        parts.append(
            "Minimum detectable mean shift of the forget set's margins:"
            f" {strong.detectable:.2f} standard deviations of retrained models."
        )
    exposed, memory = strong.row("epsilon_exposed"), strong.arm("memory")
    if memory is not None and memory.familiar is not None and memory.strange is not None:
        parts.append(
            "Records that a single-record attack exposes against placebo models:"
            f" {memory.familiar + memory.strange} of {memory.records}."
        )
    elif exposed is not None and exposed.estimate.value is not None:
        parts.append(
            f"Records that a single-record attack exposes: {strong.familiar + strong.strange} of"
            f" {strong.forgotten}."
        )
    else:
        parts.append("Too few models to judge single records.")
    return (*parts, NOT_PROOF)


def strong_limits(strong: StrongResults) -> tuple[str, ...]:
    """Return what a strong audit cannot show."""
    few: tuple[str, ...] = ()
    if strong.models < ENOUGH:
        few = (
            f"{strong.models} models of each kind are too few (fewer than {ENOUGH}): single records"
            " cannot be judged, and nothing here can show that the method passes.",
        )
    seen = (
        ""
        if math.isnan(strong.detectable)
        else f" A mean shift of margins below {strong.detectable:.2f} standard deviations cannot be"
        " detected."
    )
    refused = () if strong.arm("memory") or not strong.placebo else (as_sentence(strong.placebo),)
    return (
        *few,
        *refused,
        "An audit can refute that data are gone; it cannot prove it. Bounds on epsilon are lower"
        f" bounds: a record without one is not shown to be safe.{seen}",
        "The ensembles judge the method with these settings, on this request, with this recipe"
        " (design FULL): models of other seeds, not this model. This model was compared with a few"
        " retrained models; its single records were not tested.",
        "Attacks saw the outputs at the records themselves. Outputs at similar rows, and what the"
        " weights hold without showing it, were not tested.",
        "The target is the removal of these rows. Similar rows in the retain set, and what they"
        " teach, are not removed.",
    )


def _of_one_model(f: Finding, *, memory: bool) -> Finding:
    """Return what one model shows; against retrained models alone, that is no sign of memory."""
    update = {"reason": f"this model: {f.reason}"}
    if memory and f.verdict in _MEMORY and PROBE not in f.rows:
        return f.model_copy(update=update | {"verdict": Verdict.DISTINGUISHABLE})
    return f.model_copy(update=update)


_MEMORY = {Verdict.LEAKS, Verdict.OVER_FORGOT}


def _blamed(found: Sequence[Finding]) -> bool:
    return any(f.verdict in _MEMORY for f in found)


def _faults_without_placebo(s: StrongResults) -> Iterator[Finding]:
    """Yield LEAKS and OVER-FORGOT where retrained models are all there is to compare with."""
    exposed = s.row("epsilon_worst")
    worst = None if exposed is None else exposed.estimate.value
    total = s.forgotten
    if s.familiar:
        yield Finding(
            verdict=Verdict.LEAKS,
            reason=f"{s.familiar} of {total} records of the forget set are still memorised: their"
            f" corrected bound on epsilon is above 0, the largest of all is {worst:.2f} nats",
            rows=("epsilon_worst", "epsilon_exposed"),
        )
    if s.strange:
        yield Finding(
            verdict=Verdict.OVER_FORGOT,
            reason=f"{s.strange} of {total} records of the forget set are known worse than to"
            f" retrained models: their corrected bound on epsilon is above 0, the largest of all is"
            f" {worst:.2f} nats",
            rows=("epsilon_worst", "epsilon_exposed"),
        )
    yield from _attacked(s)


def _kept(s: StrongResults) -> Iterator[Finding]:
    for kept in _there(s, KEPT_ATTACKS):
        if kept.gap_low is not None and kept.margin is not None and kept.gap_low > kept.margin:
            yield Finding(
                verdict=Verdict.DISTINGUISHABLE,
                reason="an attack exposes retained rows more than on retrained models:"
                f" {_gap(kept)}",
                rows=(kept.metric,),
            )


def _damaged(s: StrongResults) -> Iterator[Finding]:
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
                reason="the models know the forget set better than retrained models do:"
                f" {_plain(metric)} {_gap(row)}",
                rows=(metric,),
            )
        elif high < -row.margin:
            yield Finding(
                verdict=Verdict.OVER_FORGOT,
                reason="the models know the forget set worse than retrained models do:"
                f" {_plain(metric)} {_gap(row)}",
                rows=(metric,),
            )


def _told_apart(s: StrongResults) -> Iterator[Finding]:
    """Yield that unlearned and retrained models differ, and by what where a placebo tells."""
    row, like, signature = s.row("permutation_p"), s.arm("likeness"), s.arm("signature")
    if row is None or like is None:
        return
    p = row.estimate.value
    exposed = (like.familiar or 0) + (like.strange or 0) if signature is not None else 0
    seen = []
    if p is not None and p < LEVEL:
        seen.append(
            "a permutation test on the forget set tells unlearned from retrained models, p ="
            f" {p:.3g}"
        )
    if exposed:
        seen.append(f"{exposed} of {like.records} records differ from retrained models")
    if signature is not None:
        seen += [f.reason for f in _attacked(s)]
    if not seen:
        return
    if like.shift.value is not None:
        seen.append(f"mean shift {like.shift.value:+.2f} standard deviations")
    if signature is not None:
        own = "undefined" if signature.auc.value is None else f"{signature.auc.value:.3f}"
        seen.append(
            "memory does not show, so this is the signature of the algorithm: placebo against"
            f" retrained models U-LiRA AUC {own}, mean shift {signature.shift.value or 0.0:+.2f}"
        )
    yield Finding(
        verdict=Verdict.DISTINGUISHABLE,
        reason="; ".join(seen),
        rows=("permutation_p", "ensemble_margin_shift"),
    )


def _other_recipe(recipe: RecipeCheck | None) -> Iterator[Finding]:
    if recipe is not None and recipe.outcome == "mismatch":
        yield Finding(verdict=Verdict.INCONCLUSIVE, reason=f"{OTHER_RECIPE}: {recipe.sentence}")


def _open(s: StrongResults) -> Iterator[Finding]:
    if s.distinct < s.models:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"only {s.distinct} of {s.models} unlearned models differ from each other"
            " (REUSE): identical copies are no sample of the method",
        )
    if s.models < ENOUGH:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{s.models} models of each kind are too few to judge single records; at least"
            f" {ENOUGH} are needed",
        )
    if not any(_there(s, ATTACKS)):
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="there are no never-seen rows, so membership attacks could not run",
        )
    if s.hidden:
        yield Finding(
            verdict=Verdict.INCONCLUSIVE,
            reason="this forget set cannot tell methods apart: even the originals, which forgot"
            " nothing, look like retrained models",
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
    gap = " ".join(gap_texts(row, 3))
    return f"{row.estimate.value:.3f}, retrained {mean:.3f}, gap {gap}"


def _plain(metric: str) -> str:
    return metric_label(metric.removeprefix("ensemble_"))
