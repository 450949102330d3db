"""Verdicts of the reference audit: rules on gaps to retrained models.

``evaluate`` runs the table ``REFERENCE_RULES``, from which docs/verdicts.md is generated as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from unlearnkit.auditing.label_noise import (
    DAMAGE_RULE,
    NOISE_RULE,
    NOISE_SOURCE,
    RETAINED,
    LabelNoise,
    UtilityGap,
    generalisation_gap,
    noise_unlearned,
    utility_lost,
)
from unlearnkit.auditing.placebo_models import PlaceboControl
from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS, Reason, VerdictRule, evaluate
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
from unlearnkit.auditing.verdicts_fast import FAST_RULES, FastAudit
from unlearnkit.auditing.verdicts_memory import ROWS as MEMORY
from unlearnkit.auditing.verdicts_memory import memory_evidence
from unlearnkit.catalog import metrics
from unlearnkit.report.phrases import gap_texts
from unlearnkit.report.recipe_outcome import RecipeCheck
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

OTHER_RECIPE = "the recipe does not reproduce the given model"
"""How the reason begins where the recipe check found a mismatch."""

HEADROOM = 3.0
"""Oracle deviations between original and oracle below which a metric cannot rank methods."""


@dataclass(frozen=True)
class VerdictInputs:
    """What verdicts rest on besides the table."""

    rows: Sequence[MetricRow]
    classes_removed: bool
    """Whether whole classes had to go: no kept row has them."""

    head_only: bool
    """Whether every parameter below the last layer equals the original's, bit for bit."""

    unchanged: bool
    """Whether the model is the original, bit for bit."""

    oracles: int
    placebo: PlaceboControl | None = None
    """How the model compares with placebo models; None without a placebo control."""

    recipe: RecipeCheck | None = None
    """Whether the recipe gives models like the original; None where there was no check."""

    measure_noise: Callable[[], LabelNoise] | None = None
    """Measures whether labels of the retain set are noisy; None: they count as clean."""

    @cached_property
    def losses(self) -> tuple[UtilityGap, ...]:
        """Return where accuracy or error is worse than retrained models' beyond the margin."""
        return tuple(_losses(self))

    @cached_property
    def table(self) -> dict[str, MetricRow]:
        """Return the rows by metric."""
        return {r.metric: r for r in self.rows}

    @cached_property
    def compared_gaps(self) -> dict[str, Gap]:
        """Return the gaps on which equivalence must be shown, by metric."""
        return _compared(self.table)

    @property
    def has_intervals(self) -> bool:
        """Return whether there are enough oracles for intervals."""
        return self.oracles >= ENOUGH_FOR_INTERVALS


def judge(facts: VerdictInputs) -> tuple[Finding, ...]:
    """Return every verdict of a reference audit that holds, headline first.

    Args:
        facts: The table, and what else is known.

    Returns:
        At least one finding.
    """
    return evaluate(REFERENCE_RULES, facts)


def findings_of_fast_audit(audit: FastAudit) -> tuple[Finding, ...]:
    """Return every verdict of a fast audit that holds, headline first.

    Args:
        audit: The table, and what the tests need.

    Returns:
        At least one finding.
    """
    return evaluate(FAST_RULES, audit)


def _remembered(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.placebo is None:
        yield from _known_better(facts)
        return
    for text in memory_evidence(facts.placebo.memory, 1):
        yield Reason(f"memory of the forget set remains: {text}", MEMORY)


def _over_forgotten(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.placebo is None:
        yield from _known_worse(facts)
        return
    for text in memory_evidence(facts.placebo.memory, -1):
        yield Reason(f"the forget set is known worse than without it: {text}", MEMORY)


def _signature(facts: VerdictInputs) -> Iterator[Reason]:
    """Yield gaps to retrained models that are no memory."""
    if facts.placebo is not None:
        for why in (*_known_better(facts), *_known_worse(facts)):
            text = f"{why.text}; memory does not show against placebo models"
            yield Reason(text, why.metrics)
    yield from _features_of_the_method(facts)


def _known_better(facts: VerdictInputs) -> Iterator[Reason]:
    for row, g, sign in _familiarity(facts):
        low, _ = sorted((sign * g.low, sign * g.high))
        if low > _margin(row):
            text = _beside_retrained(row, g)
            yield Reason(
                f"the model knows the forget set better than retrained models do: {text}",
                (row.metric,),
            )


def _known_worse(facts: VerdictInputs) -> Iterator[Reason]:
    for row, g, sign in _familiarity(facts):
        _, high = sorted((sign * g.low, sign * g.high))
        # Of classes that go whole an oracle knows no row: there is no less than that.
        if high < -_margin(row) and not (facts.classes_removed and row.metric in ATTACKS):
            text = _beside_retrained(row, g)
            yield Reason(
                f"the model knows the forget set worse than retrained models do: {text}",
                (row.metric,),
            )


def _familiarity(facts: VerdictInputs) -> Iterator[tuple[MetricRow, Gap, float]]:
    """Yield row, gap and sign of each metric of familiarity; larger is more familiar."""
    for metric in (*KNOWN, *ATTACKS):
        if metric in facts.compared_gaps:
            sign = -1.0 if metrics()[metric].higher_is_better is False else 1.0
            yield facts.table[metric], facts.compared_gaps[metric], sign


def _margin(row: MetricRow) -> float:
    assert row.margin is not None
    return row.margin


def _held_in_features(facts: VerdictInputs) -> Iterator[Reason]:
    """Yield that features hold a class, unless those of placebo models hold it too."""
    return (why for why, is_memory in _probed(facts) if is_memory)


def _features_of_the_method(facts: VerdictInputs) -> Iterator[Reason]:
    """Yield that features tell a class apart as those of placebo models do."""
    return (why for why, is_memory in _probed(facts) if not is_memory)


def _probed(facts: VerdictInputs) -> Iterator[tuple[Reason, bool]]:
    """Yield that features hold a class: like no oracle's, more than random ones, half as before.

    And whether that is memory: also like no placebo model's, where there are such.
    """
    row, bare = facts.table.get(PROBE), facts.table.get(f"{PROBE}_untrained")
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
    text = (
        "the features below the last layer still hold the forgotten classes: a new head on"
        f" them has error {value:.3f}, retrained {row.oracle.mean:.3f}{beside} (p = {p:.2g} by a"
        f" model-based test), {max(share, 0.0):.0%} of the original's distance closed"
    )
    placebo = facts.placebo.head_probes if facts.placebo is not None else ()
    mean = sum(placebo) / max(len(placebo), 1)
    is_memory = not placebo
    if placebo:
        text += f"; placebo models, which never saw them, {mean:.3f}"
        chance = outlying(value, list(placebo))
        is_memory = value < mean and (chance is None or chance < OUTSIDE_LEVEL)
    else:
        text += "; no placebo model was probed, so the method itself may be the cause"
    yield Reason(text, (PROBE,) if bare is None else (PROBE, bare.metric)), is_memory


def _outside(facts: VerdictInputs) -> Iterator[Reason]:
    tests = sum(m in facts.table for m in OUTSIDE)
    for metric in OUTSIDE:
        row = facts.table.get(metric)
        if row is None or row.estimate.value is None or row.oracle is None:
            continue
        values = [v for v in row.oracle.values if v is not None]
        distance = row.floor is not None
        p = outlying(row.estimate.value, values, distance=distance)
        if p is None or p >= OUTSIDE_LEVEL / tests or (distance and (row.gap or 0.0) <= 0):
            continue
        closed = (
            ""
            if row.gap_closed is None
            else f", {row.gap_closed:.0%} of the original's distance closed"
        )
        yield Reason(
            f"farther from retraining than retrained models are from each other:"
            f" {metric_label(metric)}"
            f" {row.estimate.value:.3g}, retrained {row.oracle.mean:.3g}"
            f"{'' if row.z is None else f' (z = {row.z:.1f})'}, p = {p:.2g} by a model-based"
            f" test{closed}",
            (metric,),
        )


def _losses(facts: VerdictInputs) -> Iterator[UtilityGap]:
    for metric in UTILITY:
        if metric not in facts.compared_gaps:
            continue
        row, g = facts.table[metric], facts.compared_gaps[metric]
        worse = -g.high if metrics()[metric].higher_is_better else g.low
        if worse > _margin(row):
            text, beyond = _beside_retrained(row, g), worse - _margin(row)
            more = generalisation_gap(metric, facts.table.get)
            yield UtilityGap.of(metric, text, beyond, facts.measure_noise, more)


def _other_recipe(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.recipe is not None and facts.recipe.outcome == "mismatch":
        yield Reason(f"{OTHER_RECIPE}: {facts.recipe.sentence}")


def _no_intervals(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.oracles < ENOUGH_FOR_INTERVALS:
        yield Reason(
            f"{facts.oracles} retrained model{'s give' if facts.oracles > 1 else ' gives'} no"
            f" intervals; at least {ENOUGH_FOR_INTERVALS} are needed"
        )


def _same_features(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.has_intervals and (facts.unchanged or facts.head_only):
        what = "no weight has changed" if facts.unchanged else "only the last layer was changed"
        yield Reason(
            f"{what}: the features below it are those of the original, so the forget set"
            " can be learned again quickly; equal predictions do not show that it is removed",
            ("edit_size",) if "edit_size" in facts.table else (),
        )


def _too_few(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.has_intervals and facts.oracles < ENOUGH_FOR_EQUIVALENCE:
        yield Reason(
            f"{facts.oracles} retrained models are too few to say that a model matches"
            f" retraining; at least {ENOUGH_FOR_EQUIVALENCE} are needed"
        )


def _no_headroom(facts: VerdictInputs) -> Iterator[Reason]:
    if facts.has_intervals and not enough_headroom(facts.rows):
        yield Reason(
            "this forget set cannot tell methods apart: on no metric does the original"
            f" differ from retraining by {HEADROOM:g} standard deviations"
        )


def _not_equivalent(facts: VerdictInputs) -> Iterator[Reason]:
    open_rows = tuple(
        m for m in facts.compared_gaps if facts.table[m].judgement is not Judgement.EQUIVALENT
    )
    if open_rows:
        yield Reason(
            f"equivalence with retraining is not shown on {list_first_three(open_rows)}: the"
            " interval of the gap does not lie inside the margin",
            open_rows,
        )


def _equivalent(facts: VerdictInputs) -> Iterator[Reason]:
    rows = tuple(facts.compared_gaps)
    yield Reason(f"equivalence with retraining is shown on all {len(rows)} compared metrics", rows)


_MARGIN = "95 % interval, beyond the margin"
_PLACEBO_MARGIN = (
    f"beyond the margin: all tests against placebo models together {FALSE_ALARMS:g} (Bonferroni);"
    " a 95 % interval against retrained models"
)
_PREDICTION = "Student's prediction interval of one more retrained model"
_TOST = "two one-sided tests (Schuirmann, 1987)"
_ADVERSE = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED)

REFERENCE_RULES: tuple[VerdictRule[VerdictInputs], ...] = (
    VerdictRule(
        "reference",
        Verdict.LEAKS,
        "The gap to placebo models (the method run on the retrained models; these themselves where"
        " it does not run on them) lies beyond the margin, on the side of rows that the model"
        " knows.",
        (*KNOWN, *ATTACKS),
        _PLACEBO_MARGIN,
        _PREDICTION,
        holds=_remembered,
    ),
    VerdictRule(
        "reference",
        Verdict.LEAKS,
        "The layers below the last still hold a forgotten class: outside the retrained models'"
        " spread (and that of placebo models where there are any), better than untrained layers,"
        " and less than half of the original's distance closed.",
        (PROBE,),
        f"level {OUTSIDE_LEVEL:g}; closed share {HALF:g}",
        _PREDICTION,
        holds=_held_in_features,
    ),
    VerdictRule(
        "reference",
        Verdict.OVER_FORGOT,
        "The gap to placebo models (to retrained models where there are none; then attacks do not"
        " count where whole classes were removed) lies beyond the margin, on the side of rows that"
        " look strange.",
        (*KNOWN, *ATTACKS),
        _PLACEBO_MARGIN,
        _PREDICTION,
        holds=_over_forgotten,
    ),
    VerdictRule(
        "reference",
        Verdict.DISTINGUISHABLE,
        "Neither LEAKS nor OVER-FORGOT against placebo models, and a gap to retrained models lies"
        " beyond the margin: the signature of the algorithm.",
        (*KNOWN, *ATTACKS),
        _MARGIN,
        _PREDICTION,
        holds=_signature,
        unless=(Verdict.LEAKS, Verdict.OVER_FORGOT),
    ),
    VerdictRule(
        "reference",
        Verdict.DISTINGUISHABLE,
        "Neither LEAKS nor OVER-FORGOT, and a metric lies outside the spread of the retrained"
        f" models (level {OUTSIDE_LEVEL:g}, Bonferroni).",
        OUTSIDE,
        f"level {OUTSIDE_LEVEL:g}, Bonferroni",
        _PREDICTION,
        holds=_outside,
        unless=(Verdict.LEAKS, Verdict.OVER_FORGOT),
    ),
    VerdictRule(
        "reference",
        Verdict.DISTINGUISHABLE,
        NOISE_RULE,
        RETAINED,
        _MARGIN,
        f"{_PREDICTION}; {NOISE_SOURCE}",
        holds=noise_unlearned,
        unless=(Verdict.LEAKS, Verdict.OVER_FORGOT),
    ),
    VerdictRule(
        "reference",
        Verdict.DAMAGED,
        DAMAGE_RULE,
        UTILITY,
        _MARGIN,
        _PREDICTION,
        holds=utility_lost,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        "Models trained by the recipe are not like the given model (recipe check).",
        level="level 0.01, all quantities together",
        source="Student's prediction interval, Cauchy combination (Liu and Xie, 2020)",
        holds=_other_recipe,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        f"There are fewer than {ENOUGH_FOR_INTERVALS} retrained models: no intervals at all.",
        holds=_no_intervals,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        "No weight has changed, or only the last layer.",
        ("edit_size",),
        holds=_same_features,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        f"There are fewer than {ENOUGH_FOR_EQUIVALENCE} retrained models.",
        holds=_too_few,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        "No metric tells the original model from retrained models, so this forget set cannot rank"
        " methods.",
        COMPARED,
        f"{HEADROOM:g} standard deviations of the retrained models",
        holds=_no_headroom,
    ),
    VerdictRule(
        "reference",
        Verdict.INCONCLUSIVE,
        "Equivalence is not shown on a compared metric.",
        COMPARED,
        "two one-sided tests, level 0.05",
        _TOST,
        holds=_not_equivalent,
    ),
    VerdictRule(
        "reference",
        Verdict.MATCHES,
        "No other verdict holds: two one-sided tests pass on every compared metric.",
        COMPARED,
        "level 0.05",
        _TOST,
        holds=_equivalent,
        unless=(*_ADVERSE, Verdict.INCONCLUSIVE),
    ),
)
"""The reference tier's rules, in order of precedence."""


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
