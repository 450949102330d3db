"""What the numbers of strong audits are, and how many models these take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

LEAST = 4
"""Models of each kind: fewer say nothing at all."""

ENOUGH = 64
"""Models of each kind from which on single rows can be judged: half to fit, half to attack."""

AUC_MARGIN = 0.02
"""Largest difference of an AUC from that of retrained models which counts as none."""


@dataclass(frozen=True)
class StrongMetric:
    """What a number is, whoever sits in the unlearned models' seat."""

    section: int
    family: str
    unit: str
    doc: str
    goal: Literal["high", "low", "as the oracle", "value"] = "as the oracle"
    margin: float | None = None
    """Largest gap to retrained models that counts as none; from their deviation when None."""


KINDS: Mapping[str, StrongMetric] = {
    "permutation_p": StrongMetric(
        2,
        "distance",
        "probability",
        "Chance that retrained models, split at random, lie as far apart on the forgotten rows.\n\n"
        "Labels are exchanged between unlearned and retrained models; below 0.01 the method is"
        " told from retraining. No fit, no threshold, and the dependence of rows is kept.",
        "high",
    ),
    "ensemble_margin_shift": StrongMetric(
        2,
        "distance",
        "oracle deviations",
        "Mean shift of the forgotten rows' margins from retrained models', with its sign.\n\n"
        "Above 0 they look too familiar, below 0 too strange.",
    ),
    "degree_forget": StrongMetric(
        2,
        "distance",
        "fraction of the way",
        "How far forgotten rows still are on the way from retrained models to originals.\n\n"
        "Mean over models and rows of a graded score (IAM, USENIX Security 2025): 0 as"
        " retrained models, 1 as the original that the model was made from. Rows whose original"
        " lies less than 2 deviations from retrained models have none.",
    ),
    "degree_over": StrongMetric(
        2,
        "distance",
        "fraction",
        "Share of those cells beyond retrained models, on the side away from the original.\n\n"
        "Beyond 1.96 deviations of theirs; about 0.025 by chance.",
    ),
    "ensemble_wasserstein_forget": StrongMetric(
        2,
        "distance",
        "oracle deviations",
        "Median over forgotten rows of the Wasserstein-1 distance between laws of margins.\n\n"
        "Of unlearned from retrained models, in the deviation of the latter.",
        "low",
    ),
    "klom_forget": StrongMetric(
        2,
        "distance",
        "nats",
        "Median over forgotten rows of KLoM, the divergence of margins over models.\n\n"
        "KL of unlearned from retrained models (Georgiev et al., ICLR 2025), in bins of equal"
        " numbers of retrained models. Its floor is not 0: compare with the oracle's value.",
        "low",
    ),
    "klom_forget_p95": StrongMetric(
        2,
        "distance",
        "nats",
        "KLoM that one forgotten row in twenty exceeds.",
        "low",
    ),
    "epsilon_worst": StrongMetric(
        3,
        "exposure",
        "nats",
        "Largest bound on epsilon of any forgotten row, corrected for their number.\n\n"
        "How many times likelier, as a logarithm, some outcome at this row is under unlearning than"
        " under retraining, at least. Laws and threshold are fitted on one half of the models and"
        " counted on the other (Clopper-Pearson); all bounds hold at once with 95 %.",
        "low",
    ),
    "epsilon_exposed": StrongMetric(
        3,
        "exposure",
        "fraction",
        "Share of forgotten rows whose corrected bound on epsilon is above 0.",
        "low",
    ),
    "epsilon_above_1": StrongMetric(
        3,
        "exposure",
        "fraction",
        "Share of forgotten rows whose corrected bound on epsilon is above 1.",
        "low",
    ),
    "ulira_auc": StrongMetric(
        4,
        "membership",
        "fraction",
        "How well an attacker of each single row tells unlearned from retrained models: AUC.\n\n"
        "U-LiRA (Hayes et al., 2024): laws of margins are fitted on one half of the models and the"
        " other half is attacked, and the reverse; all cells together. 0.5 is guessing.",
        margin=AUC_MARGIN,
    ),
    "ulira_accuracy": StrongMetric(
        4,
        "membership",
        "fraction",
        "Balanced accuracy of the same attacker, mean over rows.",
    ),
    "ulira_exposed": StrongMetric(
        4,
        "membership",
        "fraction",
        "Share of forgotten rows at which that attacker is right more than 75 % of the time.\n\n"
        "Beyond chance, with at most 5 % of them expected to be false (Benjamini and Hochberg).",
        "low",
    ),
    "rmia_auc": StrongMetric(
        4,
        "membership",
        "fraction",
        "How well RMIA tells forgotten rows from never-seen ones: AUC, mean over models.\n\n"
        "Each row's probability relative to retrained models' (Zarifzadeh et al., ICML 2024). The"
        " right value is the oracle's, not 0.5.",
        margin=AUC_MARGIN,
    ),
    "lira_auc": StrongMetric(
        4,
        "membership",
        "fraction",
        "How well LiRA tells forgotten rows from never-seen ones: AUC, mean over models.\n\n"
        "How far a prediction lies towards the row's target, in the law of retrained models at the"
        " row (Carlini et al., S&P 2022, offline). The right value is the oracle's.",
        margin=AUC_MARGIN,
    ),
    "lira_auc_retained": StrongMetric(
        5,
        "membership",
        "fraction",
        "How well LiRA tells retained rows from never-seen ones: AUC, mean over models.\n\n"
        "Above the oracle's value, unlearning has exposed rows that nobody asked to forget.",
        margin=AUC_MARGIN,
    ),
    "rmia_auc_retained": StrongMetric(
        5,
        "membership",
        "fraction",
        "How well RMIA tells retained rows from never-seen ones: AUC, mean over models.\n\n"
        "Above the oracle's value, unlearning has exposed rows that nobody asked to forget.",
        margin=AUC_MARGIN,
    ),
    "permutation_p_retained": StrongMetric(
        5,
        "distance",
        "probability",
        "The permutation test on a sample of retained rows.",
        "value",
    ),
    "klom_retained_p95": StrongMetric(
        5,
        "distance",
        "nats",
        "KLoM that one retained row in twenty exceeds.",
        "low",
    ),
    "ensemble_two_model_auc": StrongMetric(
        6,
        "membership",
        "fraction",
        "How well the fall of the margin from old to new model tells forgotten from never-seen"
        " rows.\n\nAUC, mean over pairs. Retraining leaks here too: the right value is the"
        " oracle's.",
        margin=AUC_MARGIN,
    ),
    "ensemble_accuracy_forget": StrongMetric(
        8, "behaviour", "fraction", "Accuracy on forgotten rows, mean over models."
    ),
    "ensemble_accuracy_retain": StrongMetric(
        8, "behaviour", "fraction", "Accuracy on a sample of retained rows, mean over models."
    ),
    "ensemble_accuracy_test": StrongMetric(
        8, "behaviour", "fraction", "Accuracy on test rows, mean over models."
    ),
    "forgetting_quality": StrongMetric(
        10,
        "composite",
        "fraction",
        "The NeurIPS 2023 competition's F, from sound bounds: 1 when no row has one above 0.\n\n"
        "Mean over forgotten rows of 2 / 2^n, n the bin of the row's own bound on epsilon, half a"
        " nat wide (Triantafillou et al., 2024). The competition's own estimator reads about 0.17"
        " for perfect unlearning.",
        "high",
    ),
}
"""Every number of the table, in the order of the audit within a section."""


def listed(metric: str) -> str:
    """Return under which name a number is listed: an error stands where an accuracy would."""
    return metric.replace("_error_", "_accuracy_")


def kind_of(metric: str) -> StrongMetric:
    """Return what a number is."""
    known = KINDS[listed(metric)]
    if metric in KINDS:
        return known
    return replace(known, unit="as targets", doc=known.doc.replace("Accuracy", "Error"))
