"""The strong table: every number of the tier as a pure function of signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.attacks.forgetting_quality import Quality
from unlearnkit.attacks.lira import lira
from unlearnkit.attacks.permutation import permutation_test, smallest_shift
from unlearnkit.attacks.rmia import rmia
from unlearnkit.auditing.strong import bootstrap_intervals as intervals
from unlearnkit.auditing.strong.arm_comparison import ArmPair, arm_pairs, compare_arms, per_record
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.placebo import PLACEBO, left_out
from unlearnkit.auditing.strong.scores import EnsembleScores
from unlearnkit.auditing.strong.strata import strata
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate, make_row
from unlearnkit.catalog import metrics
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.metric import METRICS, Metric, measured_by_audit
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import (
    ArmComparison,
    Design,
    MarginSample,
    MetricRow,
    RecordComparison,
    RowExposure,
    Stratum,
)
from unlearnkit.stats.oracle_gap import Judgement
from unlearnkit.stats.roc import auc_rows

LEVEL = 0.01
"""Below this p-value the method differs from retraining."""

DRAWN = 4
"""Most exposed rows whose margins are drawn."""

Fn = Callable[[str], EnsembleEstimate]


@dataclass(frozen=True)
class StrongResults:
    """What the signals of one request say of one method."""

    rows: tuple[MetricRow, ...]
    exposure: tuple[RowExposure, ...]
    """Every forgotten row, the most exposed first."""

    arms: tuple[ArmComparison, ...]
    """Memory, signature and likeness; likeness alone where there is no placebo arm."""

    placebo: str
    """Why there is no placebo arm, or what holds of it; empty where neither has to be said."""

    laws: tuple[MarginSample, ...]
    degrees: tuple[MarginSample, ...]
    """How far each forgotten row still is on the way to the originals, mean over models."""

    strata: tuple[Stratum, ...]
    """Thirds of the forgotten rows, by how they are."""

    forget_rows: int
    """How many forgotten rows there are."""

    familiar: int
    """Rows with a corrected bound above 0 that look too familiar."""

    strange: int
    """Rows with a corrected bound above 0 that look too strange."""

    models: int
    """N."""

    distinct: int
    """Unlearned models that differ from each other."""

    warnings: tuple[str, ...]
    """What a reader must know of equal models."""

    detectable: float
    """Smallest shift that is seen with 80 % power, in oracle deviations; nan if none is."""

    originals_indistinguishable: bool
    """Whether the originals themselves do not differ from retrained models: no headroom."""

    @property
    def design(self) -> Design:
        """Return FULL if every unlearned model came from its own original, else REUSE."""
        return "FULL" if self.distinct == self.models else "REUSE"

    def row(self, metric: str) -> MetricRow | None:
        """Return the row of a metric; None where there is none."""
        return next((r for r in self.rows if r.metric == metric), None)

    def arm(self, name: str) -> ArmComparison | None:
        """Return the comparison of that name; None where there is none."""
        return next((a for a in self.arms if a.name == name), None)


def strong_table(
    signals: MarginMatrix,
    rt: Runtime,
    *,
    apart: Tensor | None = None,
    reads_request: bool = True,
    judged_only: bool = False,
) -> StrongResults:
    """Return all that a strong audit says, from signals alone.

    Args:
        signals: Kinds ``unlearned``, ``original``, ``oracle`` and ``floor``, and ``placebo`` where
            the method runs on models that never saw the forget set; sections ``forget`` and
            ``retain``, and as far as there are any ``held_out``, ``population`` and ``test``.
        rt: Gives the order of permutations, from its seed.
        apart: Distance of each forgotten row's features from the middle of all rows, if known.
        reads_request: Whether the method reads forget rows or forgotten classes.
        judged_only: Whether to leave out what no verdict rests on: for simulations of verdicts.

    Returns:
        The table.
    """
    # Targets that are numbers give margins by a direction in which all arms have a say.
    seats = EnsembleScores(signals if signals.residuals is None else signals.without(PLACEBO), rt)
    pairs = arm_pairs(seats, signals, rt)
    exposure = () if judged_only else tuple(_exposure(seats, pairs))
    rows = {r.metric: r for r in _rows(seats, judged_only=judged_only)}
    found = seats.quality("unlearned")
    exposed = found.corrected_rows > 0
    before = rows["permutation_p"].original
    told_before = before is not None and before.value is not None and before.value < LEVEL
    p = {"likeness": rows["permutation_p"].estimate.value}
    arms = (compare_arms(a, seats, p.get(a.name), judged_only=judged_only) for a in pairs)
    return StrongResults(
        rows=_in_order(rows),
        exposure=exposure,
        arms=tuple(arms),
        placebo=_placebo(signals, reads_request=reads_request),
        laws=tuple(_laws(seats, exposure)),
        degrees=() if judged_only else tuple(_degrees(seats)),
        strata=() if judged_only else tuple(strata(seats, apart)),
        forget_rows=len(exposed),
        familiar=int((exposed & (found.shift > 0)).sum()),
        strange=int((exposed & (found.shift <= 0)).sum()),
        models=signals.count("unlearned"),
        distinct=len(seats.distinct_models),
        warnings=tuple(_warnings(seats)),
        detectable=math.nan if judged_only else _detectable(seats),
        originals_indistinguishable=not told_before
        and not bool((seats.quality("original").corrected_rows > 0).any()),
    )


def _in_order(rows: Mapping[str, MetricRow]) -> tuple[MetricRow, ...]:
    """Return the rows by section, and in one as metrics are declared."""
    order = {metric: i for i, metric in enumerate(METRICS)}
    return tuple(sorted(rows.values(), key=lambda r: (r.section, order[r.metric])))


def _detectable(s: EnsembleScores) -> float:
    ours, theirs = s.answers("unlearned", "forget"), s.answers("oracle", "forget")
    return smallest_shift(ours, theirs, rng=s.rt.rng("strong/power"))


def _row(
    s: EnsembleScores,
    metric: str,
    section: str,
    fn: Fn,
    judge: Callable[[float], Judgement] = lambda _: Judgement.NOT_JUDGED,
) -> MetricRow:
    mine = fn("unlearned")
    return make_row(
        metric,
        mine,
        fn("original"),
        fn("floor"),
        examples=s.size(section),
        models=len(s.distinct_models),
        judgement=judge(mine.value),
    )


def _rows(s: EnsembleScores, *, judged_only: bool) -> Iterator[MetricRow]:
    row = partial(_row, s)
    q, u = s.quality, s.ulira
    yield row("permutation_p", "forget", partial(_permuted, s, "forget"), _told_apart)
    yield row(
        "epsilon_worst", "forget", lambda w: EnsembleEstimate(q(w).worst, note=q(w).note), _any
    )
    yield row("epsilon_exposed", "forget", lambda w: _share(q(w), 0.0), _any)
    yield row("epsilon_above_1", "forget", lambda w: _share(q(w), 1.0), _any)
    if s.is_regression:
        if s.has("held_out"):
            yield row("lira_auc", "forget", partial(_lira, s, "forget"))
            yield row("lira_auc_retained", "retain", partial(_lira, s, "retain"))
    elif s.has("held_out", "population"):
        yield row("rmia_auc", "forget", partial(_rmia, s, "forget", "held_out", "population"))
        yield row(
            "rmia_auc_retained", "retain", partial(_rmia, s, "retain", "population", "held_out")
        )
    if s.has("held_out"):
        yield row("ensemble_two_model_auc", "forget", partial(_two_models, s))
    for section in ("forget", "retain", "test"):
        if s.has(section):
            wrong = s.answers("oracle", section, "errors")
            rate = bool(((wrong == 0) | (wrong == 1)).all())
            name = f"ensemble_{'accuracy' if rate else 'error'}_{section}"
            yield row(name, section, partial(_answers, s, section, rate))
    if judged_only:
        return
    yield row("ensemble_margin_shift", "forget", partial(_shift, s))
    yield row("degree_forget", "forget", partial(_degree, s))
    yield row(
        "degree_over",
        "forget",
        lambda w: EnsembleEstimate(s.iam(w).over_share, note=s.iam(w).note),
    )
    yield row(
        "ensemble_wasserstein_forget",
        "forget",
        lambda w: EnsembleEstimate(s.wasserstein(w).median, note=s.wasserstein(w).note),
    )
    yield row("klom_forget", "forget", partial(_klom, s, "forget", "median"))
    yield row("klom_forget_p95", "forget", partial(_klom, s, "forget", "percentile_95"))
    yield row("ulira_auc", "forget", partial(_ulira, s, "auc"))
    yield row("ulira_accuracy", "forget", partial(_ulira, s, "accuracy"))
    yield row(
        "ulira_exposed",
        "forget",
        lambda w: EnsembleEstimate(u(w).exposed_share, note=u(w).note),
        _any,
    )
    yield row("permutation_p_retained", "retain", partial(_permuted, s, "retain"))
    yield row("klom_retained_p95", "retain", partial(_klom, s, "retain", "percentile_95"))
    yield row(
        "forgetting_quality", "forget", lambda w: EnsembleEstimate(q(w).score, note=q(w).note)
    )
    yield from (row(m.id, "forget", partial(_from_plugin, s, m)) for m in _plugins())


def _plugins() -> list[Metric]:
    """Return the metrics of ensembles that have a function of their own."""
    strong = (m for m in metrics().values() if m.tier is AuditTier.STRONG)
    return [m for m in strong if m.fn is not measured_by_audit]


def _from_plugin(s: EnsembleScores, m: Metric, who: str) -> EnsembleEstimate:
    """Return what a declared function says of a set of models."""
    score = m.fn(s, who)
    if score.rows is not None:
        return EnsembleEstimate.mean(score.rows, score.note)
    low, high = score.interval or (math.nan, math.nan)
    return EnsembleEstimate(score.value, low=low, high=high, how=score.method, note=score.note)


def _permuted(s: EnsembleScores, section: str, who: str) -> EnsembleEstimate:
    found = permutation_test(
        s.answers(who, section), s.answers("oracle", section), rng=s.rt.rng("strong/permutation")
    )
    return EnsembleEstimate(found.p, note=found.note)


def _rmia(
    s: EnsembleScores, members: str, others: str, strangers: str, who: str
) -> EnsembleEstimate:
    """Return the AUC of RMIA of members against others, with a third section as population."""
    ours, theirs = (
        s.margins_of_sections(who, members, others),
        s.margins_of_sections("oracle", members, others),
    )
    found = rmia(ours, theirs, s.answers(who, strangers), s.answers("oracle", strangers))
    known = s.size(members)
    each = auc_rows(found.log_ratios[:, :known], found.log_ratios[:, known:])
    return EnsembleEstimate.mean(each, found.note)


def _lira(s: EnsembleScores, members: str, who: str) -> EnsembleEstimate:
    """Return the AUC of offline LiRA: of how far beyond retrained models' predictions each lies."""
    ours, theirs = (
        s.margins_of_sections(who, members, "held_out"),
        s.margins_of_sections("oracle", members, "held_out"),
    )
    found, known = lira(ours, theirs), s.size(members)
    each = auc_rows(found.scores[:, :known], found.scores[:, known:])
    return EnsembleEstimate.mean(each, found.note)


def _two_models(s: EnsembleScores, who: str) -> EnsembleEstimate:
    """Return the AUC of the fall of the margin from each original to the model made from it."""
    before = torch.cat([s.original_margins(who, part) for part in ("forget", "held_out")], 1)
    falls, known = before - s.margins_of_sections(who, "forget", "held_out"), s.size("forget")
    return EnsembleEstimate.mean(auc_rows(falls[:, :known], falls[:, known:]))


def _shift(s: EnsembleScores, who: str) -> EnsembleEstimate:
    ours, theirs = s.answers(who, "forget"), s.answers("oracle", "forget")
    unit = theirs.std(0)
    known = unit > 0
    if len(ours) < 2 or not bool(known.any()):
        return EnsembleEstimate(math.nan, note="too few models, or retrained models do not vary")
    sides = [t[:, known] / unit[known] for t in (ours, theirs)]
    number = EnsembleEstimate(float(sides[0].mean() - sides[1].mean()))
    if who != "unlearned":
        return number
    return intervals.of_mean_gap(number, sides, s.rt.rng("strong/shift"))


def _degree(s: EnsembleScores, who: str) -> EnsembleEstimate:
    found = s.iam(who)
    number = EnsembleEstimate(found.value, note=found.note)
    if who != "unlearned":
        return number
    rng = s.rt.rng("strong/degree")
    return intervals.of_known_mean(number, found.scores, rng, given="retrained models")


def _answers(s: EnsembleScores, section: str, rate: bool, who: str) -> EnsembleEstimate:
    wrong = s.answers(who, section, "errors").double().mean(1)
    return EnsembleEstimate.mean(1 - wrong if rate else wrong)


def _klom(
    s: EnsembleScores, section: str, which: Literal["median", "percentile_95"], who: str
) -> EnsembleEstimate:
    found = s.klom(who, section)
    number = EnsembleEstimate(getattr(found, which), note=found.note)
    if who != "unlearned" or math.isnan(number.value):
        return number
    return s.klom_reach(section).about(number, which)


def _ulira(s: EnsembleScores, which: Literal["auc", "accuracy"], who: str) -> EnsembleEstimate:
    found = s.ulira(who)
    number = EnsembleEstimate(getattr(found, which), note=found.note)
    if who != "unlearned":
        return number
    of = intervals.of_auc if which == "auc" else intervals.of_accuracy
    return of(number, s.ratios("unlearned"), s.rt.rng("strong/ulira"))


def _share(found: Quality, least: float) -> EnsembleEstimate:
    if bool(found.corrected_rows.isnan().any()):
        return EnsembleEstimate(math.nan, note=found.note)
    return EnsembleEstimate(float((found.corrected_rows > least).double().mean()), note=found.note)


def _any(value: float) -> Judgement:
    return Judgement.DIFFERENT if value > 0 else Judgement.NOT_JUDGED


def _told_apart(p: float) -> Judgement:
    return Judgement.DIFFERENT if p < LEVEL else Judgement.NOT_JUDGED


def _exposure(s: EnsembleScores, pairs: Sequence[ArmPair]) -> Iterator[RowExposure]:
    """Yield the forgotten rows, most exposed first: by bound, accuracy of the attack, and shift.

    Of memory where there is a placebo arm, else of likeness.
    """
    arms: dict[str, list[RecordComparison]] = {a.name: per_record(a) for a in pairs}
    order = arms["memory" if "memory" in arms else "likeness"]
    keys = [(-(r.epsilon or 0.0), -(r.accuracy or 0.0), -abs(r.shift or 0.0)) for r in order]
    rows = s.signals.columns["forget"].tolist()
    for i in [i for _, i in sorted((k, i) for i, k in enumerate(keys))]:
        like = arms["likeness"][i]
        memory, signature = (arms[k][i] if k in arms else None for k in ("memory", "signature"))
        yield RowExposure(
            row=rows[i],
            epsilon=like.epsilon,
            accuracy=like.accuracy,
            shift=like.shift,
            memory=memory,
            signature=signature,
        )


def _placebo(signals: MarginMatrix, *, reads_request: bool) -> str:
    if signals.left_out:
        return left_out(signals.left_out)
    if not signals.count(PLACEBO):
        return ""
    groups = [{m.who for m in g} for g in signals.duplicates()]
    same = sum({"unlearned", PLACEBO} <= kinds for kinds in groups)
    notes = [
        f"{same} unlearned models are their placebo models, bit for bit: the result does not"
        " depend on the model that the method was given"
    ] * bool(same)
    notes.append(
        "the method cannot run without a request, so the signature holds what the request itself"
        " leaves"
        if reads_request
        else "the method reads neither forget rows nor classes, so its placebo without request is"
        " the placebo: the request leaves no signature"
    )
    return "; ".join(notes)


def _laws(s: EnsembleScores, exposure: Sequence[RowExposure]) -> Iterator[MarginSample]:
    rows = s.signals.columns["forget"].tolist()
    worst = [e.row for e in exposure if e.epsilon or e.accuracy is None or e.accuracy > 0.5]
    for row in worst[:DRAWN]:
        for who in ("original", "unlearned", "oracle"):
            values = s.answers(who, "forget")[:, rows.index(row)].sort().values
            yield MarginSample(who=who, split=f"row-{row}", values=tuple(values.tolist()))


def _degrees(s: EnsembleScores) -> Iterator[MarginSample]:
    for who, seat in (("original", "original"), ("unlearned", "unlearned"), ("oracle", "floor")):
        scores = s.iam(seat).scores.nanmean(0)
        values = scores[~scores.isnan()].sort().values.tolist()
        if values:
            yield MarginSample(who=who, split="degree", values=tuple(values))


def _warnings(s: EnsembleScores) -> Iterator[str]:
    """Yield what must be known of models that are equal on all examples."""
    total = s.signals.count("unlearned")
    if len(s.distinct_models) < total:
        yield (
            f"duplicates: only {len(s.distinct_models)} of {total} unlearned models differ, so the"
            " design is REUSE, not FULL; each of the others was left out"
        )
    same = {
        who: sum(
            any(m.who == who for m in g) and any(m.who == "unlearned" for m in g) for g in s.equal
        )
        for who in ("original", "oracle", "floor")
    }
    if same["original"]:
        yield f"{same['original']} unlearned models answer exactly as an original: nothing changed"
    if same["oracle"] + same["floor"]:
        yield (
            f"{same['oracle'] + same['floor']} unlearned models answer exactly as a retrained one:"
            " they are copies, not a method's work"
        )
    for who, name in (("oracle", "retrained models"), ("floor", "retrained models of the floor")):
        twice = sum(max(sum(m.who == who for m in g) - 1, 0) for g in s.equal)
        if twice:
            yield f"duplicates: {twice} {name} are equal to others; train each from its own seed"
