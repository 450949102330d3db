"""Verdicts of the strong audit: rules on ensembles.

``evaluate`` runs the table ``STRONG_RULES``, from which docs/verdicts.md is generated as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from unlearnkit.attacks.ulira import EXPOSED
from unlearnkit.auditing.label_noise import (
    DAMAGE_RULE,
    ENSEMBLE_RETAINED,
    NOISE_RULE,
    NOISE_SOURCE,
    LabelNoise,
    UtilityGap,
    generalisation_gap,
    noise_unlearned,
    utility_lost,
)
from unlearnkit.auditing.recipe_marks import MARK
from unlearnkit.auditing.remarks import NOT_PROOF, attack_sentence
from unlearnkit.auditing.strong.arm_comparison import CHANCE, MEMORY_MARGIN
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL, StrongResults
from unlearnkit.auditing.verdict_evaluation import Reason, VerdictRule, evaluate
from unlearnkit.auditing.verdict_metrics import list_first_three, metric_label
from unlearnkit.auditing.verdicts_memory import (
    memory_below_placebo,
    memory_gone,
    memory_not_shown_gone,
    memory_remains,
)
from unlearnkit.auditing.verdicts_reference import OTHER_RECIPE, PROBE
from unlearnkit.catalog import metrics
from unlearnkit.metrics.ensembles import AUC_MARGIN
from unlearnkit.report.phrases import gap_texts
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import ArmComparison, Finding, MetricRow, Verdict, as_sentence
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

EXPOSURE = ("epsilon_worst", "epsilon_exposed")
"""How far single records are exposed."""

COMPARED = (*KNOWN, *UTILITY, *ATTACKS, *KEPT_ATTACKS, "ensemble_two_model_auc")
"""Rows on which equivalence with retraining must be shown; fixed before looking."""


@dataclass(frozen=True)
class StrongInputs:
    """What the verdicts of a strong audit rest on."""

    results: StrongResults
    own: Sequence[Finding] = ()
    """What the model at hand shows by itself, next to a few retrained ones."""

    recipe: RecipeCheck | None = None
    """Whether the recipe gives models like the original; None where there was no check."""

    measure_noise: Callable[[], LabelNoise] | None = None
    """Measures whether labels of the retain set are noisy; None: they count as clean."""

    @cached_property
    def losses(self) -> tuple[UtilityGap, ...]:
        """Return where accuracy or error is worse than retrained models' beyond the margin."""
        return tuple(_losses(self))

    @property
    def other_recipe(self) -> bool:
        """Return whether the recipe gives other models than the original."""
        return self.recipe is not None and self.recipe.outcome == "mismatch"

    @property
    def memory(self) -> ArmComparison | None:
        """Return the comparison with placebo models; None where there are none."""
        return self.results.arm("memory")

    @cached_property
    def own_findings(self) -> tuple[Finding, ...]:
        """Return what the model at hand shows, as it counts here.

        A gap of one model to retrained models is no sign of memory where there are placebo models.
        """
        return tuple(_of_one_model(f, memory=self.memory is not None) for f in self.own)


def strong_findings(
    strong: StrongResults,
    own: Sequence[Finding] = (),
    recipe: RecipeCheck | None = None,
    measure_noise: Callable[[], LabelNoise] | None = None,
) -> tuple[Finding, ...]:
    """Return every verdict of a strong audit that holds, headline first.

    Args:
        strong: The table.
        own: What the model at hand shows by itself, next to a few retrained ones.
        recipe: Whether the recipe gives models like the original; None where there was no check.
        measure_noise: Measures whether labels of the retain set are noisy, where that matters;
            None: they count as clean.

    Returns:
        At least one finding.
    """
    return evaluate(STRONG_RULES, StrongInputs(strong, own, recipe, measure_noise))


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
            f" {strong.forget_rows}."
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


_MEMORY = (Verdict.LEAKS, Verdict.OVER_FORGOT)


def _own(verdict: Verdict) -> Callable[[StrongInputs], Iterator[Reason]]:
    """Return the condition that the model at hand shows this by itself."""

    def holds(facts: StrongInputs) -> Iterator[Reason]:
        for f in facts.own_findings:
            if f.verdict is verdict:
                yield Reason(f.reason, f.rows)

    return holds


def _remembered(facts: StrongInputs) -> Iterator[Reason]:
    if facts.memory is not None:
        yield from memory_remains(facts.memory)


def _over_forgotten(facts: StrongInputs) -> Iterator[Reason]:
    if facts.memory is not None:
        yield from memory_below_placebo(facts.memory)


def _remembered_without_placebo(facts: StrongInputs) -> Iterator[Reason]:
    s = facts.results
    if facts.memory is not None:
        return
    if s.familiar:
        yield Reason(
            f"{s.familiar} of {s.forget_rows} records of the forget set are still memorised: their"
            f" corrected bound on epsilon is above 0, the largest of all is {_worst(s):.2f} nats",
            EXPOSURE,
        )
    yield from _known_better(s)


def _over_forgotten_without_placebo(facts: StrongInputs) -> Iterator[Reason]:
    s = facts.results
    if facts.memory is not None:
        return
    if s.strange:
        yield Reason(
            f"{s.strange} of {s.forget_rows} records of the forget set are known worse than to"
            f" retrained models: their corrected bound on epsilon is above 0, the largest of all is"
            f" {_worst(s):.2f} nats",
            EXPOSURE,
        )
    yield from _known_worse(s)


def _worst(s: StrongResults) -> float:
    row = s.row("epsilon_worst")
    return math.nan if row is None or row.estimate.value is None else row.estimate.value


def _known_better(s: StrongResults) -> Iterator[Reason]:
    """Yield what the attack with one threshold, and the answers themselves, show."""
    for row, low, _, margin in _familiarity(s):
        if low > margin:
            yield Reason(
                "the models know the forget set better than retrained models do:"
                f" {_plain(row.metric)} {_gap(row)}",
                (row.metric,),
            )


def _known_worse(s: StrongResults) -> Iterator[Reason]:
    for row, _, high, margin in _familiarity(s):
        if high < -margin:
            yield Reason(
                "the models know the forget set worse than retrained models do:"
                f" {_plain(row.metric)} {_gap(row)}",
                (row.metric,),
            )


def _familiarity(s: StrongResults) -> Iterator[tuple[MetricRow, float, float, float]]:
    """Yield each metric of familiarity with the ends of its gap, larger is more familiar."""
    for row in _there(s, (*ATTACKS, *KNOWN)):
        if row.gap_low is None or row.gap_high is None or row.margin is None:
            continue
        low, high = row.gap_low, row.gap_high
        if metrics()[row.metric].higher_is_better is False:
            low, high = -high, -low
        yield row, low, high, row.margin


_FAULTS = (
    _remembered,
    _over_forgotten,
    _remembered_without_placebo,
    _over_forgotten_without_placebo,
)


def _distinguished(facts: StrongInputs) -> Iterator[Reason]:
    """Yield that unlearned and retrained models differ, and by what where a placebo tells."""
    s = facts.results
    row, like, signature = s.row("permutation_p"), s.arm("likeness"), s.arm("signature")
    if row is None or like is None or any(any(holds(facts)) for holds in _FAULTS):
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
        seen += [why.text for why in (*_known_better(s), *_known_worse(s))]
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
    yield Reason("; ".join(seen), ("permutation_p", "ensemble_margin_shift"))


def _retain_rows_familiar(facts: StrongInputs) -> Iterator[Reason]:
    for row in _there(facts.results, KEPT_ATTACKS):
        if row.gap_low is not None and row.margin is not None and row.gap_low > row.margin:
            yield Reason(
                f"an attack exposes retained rows more than on retrained models: {_gap(row)}",
                (row.metric,),
            )


def _losses(facts: StrongInputs) -> Iterator[UtilityGap]:
    for row in _there(facts.results, UTILITY):
        if row.gap_low is None or row.gap_high is None or row.margin is None:
            continue
        worse = -row.gap_high if metrics()[row.metric].higher_is_better else row.gap_low
        if worse > row.margin:
            text, beyond = f"{_plain(row.metric)}: {_gap(row)}", worse - row.margin
            more = generalisation_gap(row.metric, facts.results.row)
            yield UtilityGap.of(row.metric, text, beyond, facts.measure_noise, more)


def _other_recipe(facts: StrongInputs) -> Iterator[Reason]:
    if facts.recipe is not None and facts.other_recipe:
        yield Reason(f"{OTHER_RECIPE}: {facts.recipe.sentence}")


def _memory_open(facts: StrongInputs) -> Iterator[Reason]:
    if facts.memory is None:
        return
    yield from memory_not_shown_gone(facts.results, facts.memory)
    if facts.other_recipe:
        for why in memory_gone(facts.results, facts.memory):
            yield Reason(f"{why.text}; {MARK}", why.metrics)


def _too_few(facts: StrongInputs) -> Iterator[Reason]:
    s = facts.results
    if s.distinct < s.models:
        yield Reason(
            f"only {s.distinct} of {s.models} unlearned models differ from each other"
            " (REUSE): identical copies are no sample of the method"
        )
    if s.models < ENOUGH:
        yield Reason(
            f"{s.models} models of each kind are too few to judge single records; at least"
            f" {ENOUGH} are needed"
        )
    if not any(_there(s, ATTACKS)):
        yield Reason("there are no never-seen rows, so membership attacks could not run")


def _no_headroom(facts: StrongInputs) -> Iterator[Reason]:
    if facts.results.originals_indistinguishable:
        yield Reason(
            "this forget set cannot tell methods apart: even the originals, which forgot"
            " nothing, look like retrained models",
            ("permutation_p",),
        )


def _not_equivalent(facts: StrongInputs) -> Iterator[Reason]:
    rows = tuple(
        r.metric
        for r in facts.results.rows
        if r.metric in COMPARED and r.judgement in {Judgement.NOT_SHOWN, Judgement.DIFFERENT}
    )
    if rows:
        shown = list_first_three([m.removeprefix("ensemble_") for m in rows])
        yield Reason(f"equivalence with retraining is not shown on {shown}", rows)


_UNLIKE = (
    *_FAULTS,
    _distinguished,
    _retain_rows_familiar,
    noise_unlearned,
    utility_lost,
    _too_few,
    _no_headroom,
    _not_equivalent,
)
"""The conditions of all rules about likeness to retraining."""


def _equivalent(facts: StrongInputs) -> Iterator[Reason]:
    if facts.own or facts.other_recipe or any(any(holds(facts)) for holds in _UNLIKE):
        return
    s = facts.results
    rows = tuple(r.metric for r in s.rows if r.metric in COMPARED)
    yield Reason(
        f"attacks do not tell {s.models} unlearned from as many retrained models, no single record"
        f" is exposed, and equivalence is shown on all {len(rows)} compared metrics",
        ("permutation_p", "epsilon_exposed", *rows),
    )


def _memory_gone(facts: StrongInputs) -> Iterator[Reason]:
    if facts.memory is not None and not facts.other_recipe:
        yield from memory_gone(facts.results, facts.memory)


def _there(s: StrongResults, metrics: Sequence[str]) -> Iterator[MetricRow]:
    """Yield the rows of those metrics that the table has."""
    return (row for m in metrics if (row := s.row(m)) is not None)


def _gap(row: MetricRow) -> str:
    mean = row.oracle.mean if row.oracle else None
    gap = " ".join(gap_texts(row, 3))
    return f"{row.estimate.value:.3f}, retrained {mean:.3f}, gap {gap}"


def _plain(metric: str) -> str:
    return metric_label(metric.removeprefix("ensemble_"))


_MARGIN = "95 % interval, beyond the margin"
_WITHOUT_PLACEBO = (
    "Only where the method does not run on models that never saw the forget set: the same evidence"
    " against retrained models."
)
_WITHOUT_PLACEBO_LEVEL = "95 %, all rows at once; 95 % interval, beyond the margin"
_BY_ITSELF = "The model at hand shows it by itself, by a rule of the reference tier"

STRONG_RULES: tuple[VerdictRule[StrongInputs], ...] = (
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        "Against placebo models, single forget rows are exposed and look too familiar (their"
        " corrected bound on epsilon is above 0, or their attack is right in more than"
        f" {EXPOSED:.0%} of cases beyond chance), or the forget set as a whole does: U-LiRA, the"
        " membership AUC or the error on it lies beyond the margin.",
        level="95 %, all rows at once; Benjamini-Hochberg 0.05; 95 % interval, beyond"
        f" {MEMORY_MARGIN:g} (U-LiRA), {AUC_MARGIN:g} (membership AUC)",
        holds=_remembered,
    ),
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        _WITHOUT_PLACEBO,
        (*EXPOSURE, *ATTACKS, *KNOWN),
        _WITHOUT_PLACEBO_LEVEL,
        holds=_remembered_without_placebo,
    ),
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        f"{_BY_ITSELF}; where there are placebo models, only that its layers below the last hold a"
        " forgotten class.",
        (PROBE,),
        holds=_own(Verdict.LEAKS),
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        "The same evidence, where forget rows look too strange against placebo models.",
        level="as for LEAKS",
        holds=_over_forgotten,
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        _WITHOUT_PLACEBO,
        (*EXPOSURE, *ATTACKS, *KNOWN),
        _WITHOUT_PLACEBO_LEVEL,
        holds=_over_forgotten_without_placebo,
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        f"{_BY_ITSELF}; only where there are no placebo models.",
        holds=_own(Verdict.OVER_FORGOT),
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        "The ensembles show neither LEAKS nor OVER-FORGOT, and unlearned models are distinguished"
        f" from retrained ones: by a permutation test (level {LEVEL:g}), by single records or by"
        " the gap of an attack. It is the signature of the algorithm, and its size is given.",
        ("permutation_p", "ensemble_margin_shift"),
        f"level {LEVEL:g}",
        holds=_distinguished,
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        "Retain rows look more familiar than to retrained models.",
        KEPT_ATTACKS,
        f"95 % interval, beyond {AUC_MARGIN:g}",
        holds=_retain_rows_familiar,
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        f"{_BY_ITSELF}; so does a gap of this one model to retrained models, which is no sign of"
        " memory where there are placebo models.",
        holds=_own(Verdict.DISTINGUISHABLE),
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        NOISE_RULE,
        ENSEMBLE_RETAINED,
        _MARGIN,
        NOISE_SOURCE,
        holds=noise_unlearned,
        unless=_MEMORY,
    ),
    VerdictRule(
        "strong",
        Verdict.DAMAGED,
        DAMAGE_RULE,
        UTILITY,
        _MARGIN,
        holds=utility_lost,
    ),
    VerdictRule("strong", Verdict.DAMAGED, f"{_BY_ITSELF}.", holds=_own(Verdict.DAMAGED)),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Models trained by the recipe are not like the given model (recipe check). MATCHES and"
        " MEMORY GONE WITHIN LIMITS then do not hold.",
        level="level 0.01, all quantities together",
        source="Student's prediction interval, Cauchy combination (Liu and Xie, 2020)",
        holds=_other_recipe,
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Neither LEAKS nor OVER-FORGOT, and it is not shown either that the memory is gone.",
        holds=_memory_open,
        unless=_MEMORY,
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        f"There are fewer than {ENOUGH} models of each kind, some unlearned models are copies of"
        " one another, or there are no never-seen rows for the attacks.",
        holds=_too_few,
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "No test separates the original models from retrained ones, so this forget set cannot rank"
        " methods.",
        ("permutation_p", "epsilon_exposed"),
        f"level {LEVEL:g}",
        holds=_no_headroom,
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Equivalence is not shown on a compared metric.",
        COMPARED,
        "two one-sided tests, level 0.05",
        holds=_not_equivalent,
    ),
    VerdictRule(
        "strong",
        Verdict.MATCHES,
        "No other rule on likeness holds: no test tells the models apart, no forget row is exposed,"
        " and two one-sided tests pass on every compared metric. It may be open whether the memory"
        " is gone.",
        ("permutation_p", "epsilon_exposed", *COMPARED),
        "level 0.05",
        holds=_equivalent,
    ),
    VerdictRule(
        "strong",
        Verdict.MEMORY_GONE,
        "No forget row is exposed against placebo models after correction, and U-LiRA is equivalent"
        f" to {CHANCE:g}, the value of equal sets. It may hold together with DISTINGUISHABLE,"
        " DAMAGED or MATCHES: memory and likeness are two questions.",
        level=f"two one-sided tests, level 0.05, margin {MEMORY_MARGIN:g}",
        holds=_memory_gone,
        unless=_MEMORY,
    ),
)
"""The strong tier's rules, in order of precedence."""
