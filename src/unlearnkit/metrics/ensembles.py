"""Metrics of ensembles: what strong audits measure over many models of one method."""

import math

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.metric import Goal, MetricRole, declare

AUC_MARGIN = 0.02
"""Largest difference of an AUC from that of retrained models which counts as none."""

declare(
    "permutation_p",
    Goal.HIGH,
    doc=(
        "Chance that retrained models, split at random, lie as far apart on the forgotten "
        "rows.\n\n"
        "Labels are exchanged between unlearned and retrained models; below 0.01 the method "
        "differs from retraining. No fit, no threshold, and the dependence of rows is kept."
    ),
    low=0.0,
    high=1.0,
    unit="probability",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "ensemble_margin_shift",
    Goal.ORACLE,
    doc=(
        "Mean shift of the forgotten rows' margins from retrained models', with its sign.\n\n"
        "Above 0 they look too familiar, below 0 too strange."
    ),
    low=-math.inf,
    high=math.inf,
    unit="oracle deviations",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "degree_forget",
    Goal.ORACLE,
    doc=(
        "How far forgotten rows still are on the way from retrained models to originals.\n\n"
        "Mean over models and rows of a graded score (IAM, USENIX Security 2025): 0 as "
        "retrained models, 1 as the original that the model was made from. Rows whose "
        "original lies less than 2 deviations from retrained models have none."
    ),
    low=-math.inf,
    high=math.inf,
    unit="fraction of the way",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "degree_over",
    Goal.ORACLE,
    doc=(
        "Share of those cells beyond retrained models, on the side away from the original.\n\n"
        "Beyond 1.96 deviations of theirs; about 0.025 by chance."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "ensemble_wasserstein_forget",
    Goal.LOW,
    doc=(
        "Median over forgotten rows of the Wasserstein-1 distance between laws of margins.\n\n"
        "Of unlearned from retrained models, in the deviation of the latter."
    ),
    low=0.0,
    high=math.inf,
    unit="oracle deviations",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "klom_forget",
    Goal.LOW,
    doc=(
        "Median over forgotten rows of KLoM, the divergence of margins over models.\n\n"
        "KL of unlearned from retrained models (Georgiev et al., ICLR 2025), in bins of equal "
        "numbers of retrained models. Its floor is not 0: compare with the oracle's value."
    ),
    low=0.0,
    high=math.inf,
    unit="nats",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "klom_forget_p95",
    Goal.LOW,
    doc=("KLoM that one forgotten row in twenty exceeds."),
    low=0.0,
    high=math.inf,
    unit="nats",
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "epsilon_worst",
    Goal.LOW,
    doc=(
        "Largest bound on epsilon of any forgotten row, corrected for their number.\n\n"
        "How many times likelier, as a logarithm, some outcome at this row is under "
        "unlearning than under retraining, at least. Laws and threshold are fitted on one "
        "half of the models and counted on the other (Clopper-Pearson); all bounds hold at "
        "once with 95 %."
    ),
    low=0.0,
    high=math.inf,
    unit="nats",
    tier=AuditTier.STRONG,
    section=ReportSection.EXPOSURE,
    family="exposure",
)
declare(
    "epsilon_exposed",
    Goal.LOW,
    doc=("Share of forgotten rows whose corrected bound on epsilon is above 0."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.EXPOSURE,
    family="exposure",
)
declare(
    "epsilon_above_1",
    Goal.LOW,
    doc=("Share of forgotten rows whose corrected bound on epsilon is above 1."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.EXPOSURE,
    family="exposure",
)
declare(
    "ulira_auc",
    Goal.ORACLE,
    doc=(
        "How well an attacker of each single row tells unlearned from retrained models: AUC.\n\n"
        "U-LiRA (Hayes et al., 2024): laws of margins are fitted on one half of the models "
        "and the other half is attacked, and the reverse; all cells together. 0.5 is "
        "guessing."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.MEMBERSHIP,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "ulira_accuracy",
    Goal.ORACLE,
    doc=("Balanced accuracy of the same attacker, mean over rows."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.MEMBERSHIP,
    family="membership",
    role=MetricRole.ATTACK,
)
declare(
    "ulira_exposed",
    Goal.LOW,
    doc=(
        "Share of forgotten rows at which that attacker is right more than 75 % of the time.\n\n"
        "Beyond chance, with at most 5 % of them expected to be false (Benjamini and "
        "Hochberg)."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.MEMBERSHIP,
    family="membership",
    role=MetricRole.ATTACK,
)
declare(
    "rmia_auc",
    Goal.ORACLE,
    doc=(
        "How well RMIA tells forgotten rows from never-seen ones: AUC, mean over models.\n\n"
        "Each row's probability relative to retrained models' (Zarifzadeh et al., ICML 2024). "
        "The right value is the oracle's, not 0.5."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.MEMBERSHIP,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "lira_auc",
    Goal.ORACLE,
    doc=(
        "How well LiRA tells forgotten rows from never-seen ones: AUC, mean over models.\n\n"
        "How far a prediction lies towards the row's target, in the law of retrained models "
        "at the row (Carlini et al., S&P 2022, offline). The right value is the oracle's."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.MEMBERSHIP,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "lira_auc_retained",
    Goal.ORACLE,
    doc=(
        "How well LiRA tells retained rows from never-seen ones: AUC, mean over models.\n\n"
        "Above the oracle's value, unlearning has exposed rows that were to be kept."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.RETAINED,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "rmia_auc_retained",
    Goal.ORACLE,
    doc=(
        "How well RMIA tells retained rows from never-seen ones: AUC, mean over models.\n\n"
        "Above the oracle's value, unlearning has exposed rows that were to be kept."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.RETAINED,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "permutation_p_retained",
    Goal.VALUE,
    doc=("The permutation test on a sample of retained rows."),
    low=0.0,
    high=1.0,
    unit="probability",
    tier=AuditTier.STRONG,
    section=ReportSection.RETAINED,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "klom_retained_p95",
    Goal.LOW,
    doc=("KLoM that one retained row in twenty exceeds."),
    low=0.0,
    high=math.inf,
    unit="nats",
    tier=AuditTier.STRONG,
    section=ReportSection.RETAINED,
    family="distance",
    role=MetricRole.DISTANCE,
)
declare(
    "ensemble_two_model_auc",
    Goal.ORACLE,
    doc=(
        "How well the fall of the margin from old to new model tells forgotten from never- "
        "seen rows.\n\n"
        "AUC, mean over pairs. Retraining leaks here too: the right value is the oracle's."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.TWO_MODELS,
    family="membership",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
declare(
    "ensemble_accuracy_forget",
    Goal.ORACLE,
    doc=("Accuracy on forgotten rows, mean over models."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.KNOWLEDGE,
    higher_is_better=True,
)
declare(
    "ensemble_error_forget",
    Goal.ORACLE,
    doc=("Error on forgotten rows, mean over models."),
    low=0.0,
    high=math.inf,
    unit="as targets",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.KNOWLEDGE,
    higher_is_better=False,
)
declare(
    "ensemble_accuracy_retain",
    Goal.ORACLE,
    doc=("Accuracy on a sample of retained rows, mean over models."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.UTILITY,
    higher_is_better=True,
)
declare(
    "ensemble_error_retain",
    Goal.ORACLE,
    doc=("Error on a sample of retained rows, mean over models."),
    low=0.0,
    high=math.inf,
    unit="as targets",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.UTILITY,
    higher_is_better=False,
)
declare(
    "ensemble_accuracy_test",
    Goal.ORACLE,
    doc=("Accuracy on test rows, mean over models."),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.UTILITY,
    higher_is_better=True,
)
declare(
    "ensemble_error_test",
    Goal.ORACLE,
    doc=("Error on test rows, mean over models."),
    low=0.0,
    high=math.inf,
    unit="as targets",
    tier=AuditTier.STRONG,
    section=ReportSection.UTILITY,
    family="behaviour",
    role=MetricRole.UTILITY,
    higher_is_better=False,
)
declare(
    "forgetting_quality",
    Goal.HIGH,
    doc=(
        "The NeurIPS 2023 competition's F, from sound bounds: 1 when no row has one above 0.\n\n"
        "Mean over forgotten rows of 2 / 2^n, n the bin of the row's own bound on epsilon, "
        "half a nat wide (Triantafillou et al., 2024). The competition's own estimator reads "
        "about 0.17 for perfect unlearning."
    ),
    low=0.0,
    high=1.0,
    unit="fraction",
    tier=AuditTier.STRONG,
    section=ReportSection.COMPOSITE,
    family="composite",
)
