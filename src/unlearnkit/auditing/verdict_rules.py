"""Verdict rules: when each verdict holds, tier by tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnkit.auditing.next_steps import STEPS
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS, Tier, VerdictRule
from unlearnkit.auditing.verdicts_fast import FAST_RULES
from unlearnkit.auditing.verdicts_reference import REFERENCE_RULES
from unlearnkit.auditing.verdicts_strong import STRONG_RULES
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_EQUIVALENCE, ENOUGH_FOR_INTERVALS, LEAST_MARGIN

RULES: tuple[VerdictRule[Any], ...] = (*FAST_RULES, *REFERENCE_RULES, *STRONG_RULES)
"""Every rule, in the order of tiers and of precedence."""

MEANING: Mapping[Verdict, str] = {
    Verdict.LEAKS: "The model answers the forget set like rows that it was trained on.",
    Verdict.OVER_FORGOT: "The model answers the forget set worse than retrained models do.",
    Verdict.DISTINGUISHABLE: (
        "The model lies outside the spread of the retrained models, without a sign of memory or of"
        " over-forgetting."
    ),
    Verdict.DAMAGED: (
        "The model answers test rows worse than retrained models do, or the retain set by more"
        " than noisy labels explain."
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
    "**Noisy labels**: utility is accuracy on test rows, whose labels count as right. A lower fit"
    " of the retain set is damage too, also where test rows are answered as well as before, unless"
    " its labels are noisy: then it says that wrong labels are no longer memorised, which is a"
    " matter of likeness. Before DAMAGED is said of the retain set, two models are trained for a"
    " short time on a half of it each. What they err more often on the other half than on test rows"
    " (95 % interval above 0) is noise, and a loss of fit up to its upper end is no damage. Retain"
    " rows that are harder than test rows look the same. Where no model can be trained, labels"
    " count as right, and the reason says so. Where targets are numbers every one of them is noisy,"
    " and a model in full training memorises that noise: a loss of fit is no damage as long as the"
    " retain set is answered no worse than retrained models answer test rows.",
    "**Two one-sided tests**: the 90 % interval of the gap lies inside the margin. For a distance"
    " to the retrained models only the far side counts.",
)
"""Words that the rules use."""
