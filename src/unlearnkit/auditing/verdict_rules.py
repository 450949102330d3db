"""Verdict rules: when each verdict holds, tier by tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnkit.attacks.ulira import EXPOSED
from unlearnkit.auditing import verdicts_strong as strong
from unlearnkit.auditing.next_steps import STEPS
from unlearnkit.auditing.strong.arm_comparison import CHANCE, MEMORY_MARGIN
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL
from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS, Tier, VerdictRule
from unlearnkit.auditing.verdicts import REFERENCE_RULES
from unlearnkit.auditing.verdicts_fast import FAST_RULES
from unlearnkit.metrics.ensembles import AUC_MARGIN
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_EQUIVALENCE, ENOUGH_FOR_INTERVALS, LEAST_MARGIN

_MARGIN = "95 % interval, beyond the margin"

RULES: tuple[VerdictRule[Any], ...] = (
    *FAST_RULES,
    *REFERENCE_RULES,
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        "Against placebo models, single forget rows are exposed and look too familiar: their"
        " corrected bound on epsilon is above 0, or their attack is right in more than"
        f" {EXPOSED:.0%} of cases beyond chance.",
        level="95 %, all rows at once; Benjamini-Hochberg 0.05",
    ),
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        "Against placebo models, the forget set as a whole looks too familiar: U-LiRA, the"
        " membership AUC or the error on it lies beyond the margin.",
        level=f"95 % interval, beyond {MEMORY_MARGIN:g} (U-LiRA), {AUC_MARGIN:g} (membership AUC)",
    ),
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        "Only where the method does not run on models that never saw the forget set: the same"
        " evidence against retrained models.",
        ("epsilon_worst", "epsilon_exposed", *strong.ATTACKS, *strong.KNOWN),
        "95 %, all rows at once; 95 % interval, beyond the margin",
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        "The same evidence, where forget rows look too strange against placebo models.",
        level="as for LEAKS",
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        "Only where the method does not run on models that never saw the forget set: the same"
        " evidence against retrained models.",
        ("epsilon_worst", "epsilon_exposed", *strong.ATTACKS, *strong.KNOWN),
        "95 %, all rows at once; 95 % interval, beyond the margin",
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        "Neither LEAKS nor OVER-FORGOT, and unlearned models are distinguished from retrained ones:"
        f" by a permutation test (level {LEVEL:g}), by single records or by the gap of an attack."
        " It is the signature of the algorithm, and its size is given.",
        ("permutation_p", "ensemble_margin_shift"),
        f"level {LEVEL:g}",
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        "Retain rows look more familiar than to retrained models.",
        strong.KEPT_ATTACKS,
        f"95 % interval, beyond {AUC_MARGIN:g}",
    ),
    VerdictRule(
        "strong",
        Verdict.DAMAGED,
        "Accuracy or error on the retain set or the test rows is worse than retrained models' by"
        " more than the margin.",
        strong.UTILITY,
        _MARGIN,
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Models trained by the recipe are not like the given model (recipe check). MEMORY GONE"
        " WITHIN LIMITS and MATCHES then do not hold.",
        level="level 0.01, all quantities together",
        source="Student's prediction interval, Cauchy combination (Liu and Xie, 2020)",
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        f"There are fewer than {ENOUGH} models of each kind, some unlearned models are copies of"
        " one another, or there are no never-seen rows for the attacks.",
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "No test separates the original models from retrained ones, so this forget set cannot rank"
        " methods.",
        ("permutation_p", "epsilon_exposed"),
        f"level {LEVEL:g}",
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Equivalence is not shown on a compared metric.",
        strong.COMPARED,
        "two one-sided tests, level 0.05",
    ),
    VerdictRule(
        "strong",
        Verdict.INCONCLUSIVE,
        "Neither LEAKS nor OVER-FORGOT, and it is not shown either that the memory is gone.",
    ),
    VerdictRule(
        "strong",
        Verdict.MATCHES,
        "No other verdict holds: no test tells the models apart, no forget row is exposed, and two"
        " one-sided tests pass on every compared metric.",
        ("permutation_p", "epsilon_exposed", *strong.COMPARED),
        "level 0.05",
    ),
    VerdictRule(
        "strong",
        Verdict.MEMORY_GONE,
        "No forget row is exposed against placebo models after correction, and U-LiRA is equivalent"
        f" to {CHANCE:g}, the value of equal sets. It may hold together with DISTINGUISHABLE,"
        " DAMAGED or MATCHES: memory and likeness are two questions.",
        level=f"two one-sided tests, level 0.05, margin {MEMORY_MARGIN:g}",
    ),
)
"""Every rule, in the order of tiers and of precedence."""

MEANING: Mapping[Verdict, str] = {
    Verdict.LEAKS: "The model answers the forget set like rows that it was trained on.",
    Verdict.OVER_FORGOT: "The model answers the forget set worse than retrained models do.",
    Verdict.DISTINGUISHABLE: (
        "The model lies outside the spread of the retrained models, without a sign of memory or of"
        " over-forgetting."
    ),
    Verdict.DAMAGED: (
        "The model answers the retain set or the test rows worse than retrained models do."
    ),
    Verdict.INCONCLUSIVE: "Neither a difference nor equivalence was shown.",
    Verdict.MATCHES: "Equivalence was shown on every compared metric.",
    Verdict.MEMORY_GONE: (
        "The unlearned model shows no more of the forget set than placebo models do, which went"
        " through the same method and never saw it."
    ),
}
"""What each verdict says, in a sentence."""

NEXT: Mapping[Verdict, str] = {
    **{verdict: " ".join(steps) for verdict, steps in STEPS.items()},
    Verdict.INCONCLUSIVE: "Retrain more models, or use the next tier: the report says which.",
}
"""What to do after each verdict."""

TIERS: Mapping[Tier, str] = {
    "fast": (
        "No retrained models. It can find faults; it can never say that a model matches"
        " retraining. All tests of one audit together accuse a retrained model in at most"
        f" {100 * FALSE_ALARMS:g} of 100 audits (Bonferroni)."
    ),
    "reference": (
        f"Retrained models: at least {ENOUGH_FOR_INTERVALS} for intervals, at least"
        f" {ENOUGH_FOR_EQUIVALENCE} for MATCHES. Its tests against placebo models together accuse"
        f" a retrained model in at most {100 * FALSE_ALARMS:g} of 100 audits (Bonferroni)."
    ),
    "strong": (
        f"Ensembles: N unlearned models, N retrained models and N placebo models (the same method"
        f" on retrained models), by default {ENOUGH} of each. It judges single records, and reports"
        " what the model at hand shows by itself, too."
    ),
}
"""What each tier compares."""

TERMS = (
    "**Memory, signature, likeness**: unlearned against placebo models, placebo against retrained"
    " models, unlearned against retrained models.",
    "**Gap**: the value of the unlearned model minus the mean of the retrained models.",
    "**Margin**: the largest gap that counts as none. It is the metric's own margin. Where a metric"
    " has none, it is two standard deviations of the retrained models, and at least"
    f" {LEAST_MARGIN:g} for fractions (for errors: {LEAST_MARGIN:g} of the retrained models'"
    " error).",
    "**95 % interval**: of one model, the range in which the gap of one more retrained model would"
    " lie in 95 of 100 audits; of several models, Student's two-sample interval.",
    "**Recipe check**: whether originals trained anew by the recipe, or by `train_model`, are like"
    " the given model. Where they are not, no verdict passes, and every other one says that it"
    " stands under a recipe that does not reproduce the model.",
    "**Two one-sided tests**: the 90 % interval of the gap lies inside the margin. For a distance"
    " to the retrained models only the far side counts.",
)
"""Words that the rules use."""
