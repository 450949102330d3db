"""Verdict rules: when each verdict holds, tier by tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnkit.auditing import verdicts_strong as strong
from unlearnkit.auditing.next_steps import STEPS
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL
from unlearnkit.auditing.verdict_evaluation import Tier, VerdictRule
from unlearnkit.auditing.verdicts import REFERENCE_RULES
from unlearnkit.auditing.verdicts_fast import FALSE_ALARMS, FAST_RULES
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
        "Single forget rows look too familiar: their corrected bound on epsilon is above 0.",
        ("epsilon_worst", "epsilon_exposed"),
        "95 %, all rows at once",
    ),
    VerdictRule(
        "strong",
        Verdict.LEAKS,
        "The gap lies beyond the margin, on the side of rows that the models know.",
        (*strong.ATTACKS, *strong.KNOWN),
        _MARGIN,
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        "Single forget rows look too strange: their corrected bound on epsilon is above 0.",
        ("epsilon_worst", "epsilon_exposed"),
        "95 %, all rows at once",
    ),
    VerdictRule(
        "strong",
        Verdict.OVER_FORGOT,
        "The gap lies beyond the margin, on the side of rows that look stranger than to retrained"
        " models.",
        (*strong.ATTACKS, *strong.KNOWN),
        _MARGIN,
    ),
    VerdictRule(
        "strong",
        Verdict.DISTINGUISHABLE,
        "Neither LEAKS nor OVER-FORGOT, and a permutation test tells unlearned from retrained"
        f" models (level {LEVEL:g}).",
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
        Verdict.MATCHES,
        "No other verdict holds: no test tells the models apart, no forget row is exposed, and two"
        " one-sided tests pass on every compared metric.",
        ("permutation_p", "epsilon_exposed", *strong.COMPARED),
        "level 0.05",
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
        f" {ENOUGH_FOR_EQUIVALENCE} for MATCHES."
    ),
    "strong": (
        f"Ensembles: N unlearned models against N retrained models, by default {ENOUGH} of each. It"
        " judges single records, and reports what the model at hand shows by itself, too."
    ),
}
"""What each tier compares."""

TERMS = (
    "**Gap**: the value of the unlearned model minus the mean of the retrained models.",
    "**Margin**: the largest gap that counts as none. It is the metric's own margin. Where a metric"
    " has none, it is two standard deviations of the retrained models, and at least"
    f" {LEAST_MARGIN:g} for fractions (for errors: {LEAST_MARGIN:g} of the retrained models'"
    " error).",
    "**95 % interval**: of one model, the range in which the gap of one more retrained model would"
    " lie in 95 of 100 audits; of several models, Student's two-sample interval.",
    "**Two one-sided tests**: the 90 % interval of the gap lies inside the margin. For a distance"
    " to the retrained models only the far side counts.",
)
"""Words that the rules use."""
