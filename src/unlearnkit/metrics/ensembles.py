"""Metrics of ensembles: what strong audits measure over many models of one method."""

import math
from functools import partial

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.metric import Goal, MetricRole, declare

AUC_MARGIN = 0.02
"""Largest difference of an AUC from that of retrained models which counts as none."""

share = partial(declare, tier=AuditTier.STRONG, low=0.0, high=1.0, unit="fraction")
distance = partial(
    declare,
    tier=AuditTier.STRONG,
    section=ReportSection.DISTANCE,
    family="distance",
    role=MetricRole.DISTANCE,
    low=0.0,
    high=math.inf,
)
exposure = partial(share, section=ReportSection.EXPOSURE, family="exposure")
membership = partial(
    share, section=ReportSection.MEMBERSHIP, family="membership", role=MetricRole.ATTACK
)
attack_auc = partial(membership, goal=Goal.ORACLE, margin=AUC_MARGIN)

distance(
    "permutation_p",
    Goal.HIGH,
    doc=(
        "Permutation test: p-value of unlearned and retrained models being alike on forget rows."
        "\n\nLabels are exchanged between unlearned and retrained models; below 0.01 the method"
        " differs from retraining. No fit, no threshold, and the dependence of rows is kept."
    ),
    high=1.0,
    unit="probability",
)
distance(
    "ensemble_margin_shift",
    Goal.ORACLE,
    doc=(
        "Mean shift of the forget rows' margins from retrained models', with its sign.\n\n"
        "Above 0 the rows look too familiar, below 0 too strange."
    ),
    low=-math.inf,
    unit="oracle deviations",
)
distance(
    "degree_forget",
    Goal.ORACLE,
    doc=(
        "Position of forget rows between retrained models (0) and the original (1).\n\n"
        "Mean over models and rows of the interpolated membership score (IAM, USENIX Security"
        " 2025). Rows whose original lies less than 2 deviations from retrained models have none."
    ),
    low=-math.inf,
    unit="fraction of the way",
)
distance(
    "degree_over",
    Goal.ORACLE,
    doc=(
        "Share of rows and models beyond retrained models, on the side away from the original.\n\n"
        "Beyond 1.96 of their deviations; about 0.025 by chance."
    ),
    high=1.0,
    unit="fraction",
)
distance(
    "ensemble_wasserstein_forget",
    Goal.LOW,
    doc=(
        "Median over forget rows of the Wasserstein-1 distance between distributions of margins."
        "\n\nOf unlearned from retrained models, in the deviation of the latter."
    ),
    unit="oracle deviations",
)
distance(
    "klom_forget",
    Goal.LOW,
    doc=(
        "Median over forget rows of KLoM, the divergence of margins over models.\n\n"
        "KL of unlearned from retrained models (Georgiev et al., ICLR 2025), in bins of equal"
        " numbers of retrained models. Its floor is not 0: compare with the oracle's value."
    ),
    unit="nats",
)
distance(
    "klom_forget_p95", Goal.LOW, doc="KLoM that one forget row in twenty exceeds.", unit="nats"
)
exposure(
    "epsilon_worst",
    Goal.LOW,
    doc=(
        "Largest lower bound on epsilon of any forget row, corrected for their number.\n\n"
        "The logarithm of how many times likelier some outcome at this row is under unlearning"
        " than under retraining, at least. Distributions and threshold are fitted on one half of"
        " the models and errors counted on the other (Clopper-Pearson); all bounds hold at once"
        " with 95 %."
    ),
    high=math.inf,
    unit="nats",
)
exposure(
    "epsilon_exposed",
    Goal.LOW,
    doc="Share of forget rows whose corrected bound on epsilon is above 0.",
)
exposure(
    "epsilon_above_1",
    Goal.LOW,
    doc="Share of forget rows whose corrected bound on epsilon is above 1.",
)
attack_auc(
    "ulira_auc",
    doc=(
        "AUC of an attack on each single row that tells unlearned from retrained models.\n\n"
        "U-LiRA (Hayes et al., 2024): distributions of margins are fitted on one half of the models"
        " and the other half is attacked, and the reverse; all rows and models together. 0.5 is"
        " guessing."
    ),
)
membership(
    "ulira_accuracy", Goal.ORACLE, doc="Balanced accuracy of the U-LiRA attack, mean over rows."
)
membership(
    "ulira_exposed",
    Goal.LOW,
    doc=(
        "Share of forget rows at which the U-LiRA attack is right more than 75 % of the time.\n\n"
        "Beyond chance, with at most 5 % of them expected to be false (Benjamini and Hochberg)."
    ),
)
attack_auc(
    "rmia_auc",
    doc=(
        "AUC of the RMIA attack, forget rows against never-seen rows, mean over models.\n\n"
        "Each row's probability relative to retrained models' (Zarifzadeh et al., ICML 2024). The"
        " right value is the oracle's, not 0.5."
    ),
)
attack_auc(
    "lira_auc",
    doc=(
        "AUC of the LiRA attack, forget rows against never-seen rows, mean over models.\n\n"
        "How far a prediction lies towards the row's target, in the distribution of retrained"
        " models at the row (Carlini et al., S&P 2022, offline). The right value is the oracle's."
    ),
)
for _id, _attack in (("lira_auc_retained", "LiRA"), ("rmia_auc_retained", "RMIA")):
    attack_auc(
        _id,
        doc=(
            f"AUC of the {_attack} attack, retained rows against never-seen rows, mean over"
            " models.\n\nAbove the oracle's value, unlearning has exposed rows of the retain set."
        ),
        section=ReportSection.RETAINED,
    )
distance(
    "permutation_p_retained",
    Goal.VALUE,
    doc="The permutation test on a sample of retained rows.",
    high=1.0,
    unit="probability",
    section=ReportSection.RETAINED,
)
distance(
    "klom_retained_p95",
    Goal.LOW,
    doc="KLoM that one retained row in twenty exceeds.",
    unit="nats",
    section=ReportSection.RETAINED,
)
attack_auc(
    "ensemble_two_model_auc",
    doc=(
        "AUC of an attacker who has both models, by the drop of the margin from old to new.\n\n"
        "Forget rows against never-seen rows, mean over pairs. Retraining leaks here too: the right"
        " value is the oracle's."
    ),
    section=ReportSection.TWO_MODELS,
)
for _split, _rows, _role in (
    ("forget", "forget rows", MetricRole.KNOWLEDGE),
    ("retain", "a sample of retained rows", MetricRole.UTILITY),
    ("test", "test rows", MetricRole.UTILITY),
):
    _performance = partial(
        share, goal=Goal.ORACLE, section=ReportSection.UTILITY, family="accuracy", role=_role
    )
    _performance(
        f"ensemble_accuracy_{_split}",
        doc=f"Accuracy on {_rows}, mean over models.",
        higher_is_better=True,
    )
    _performance(
        f"ensemble_error_{_split}",
        doc=f"Error on {_rows}, mean over models.",
        high=math.inf,
        unit="as targets",
        higher_is_better=False,
    )
share(
    "forgetting_quality",
    Goal.HIGH,
    doc=(
        "F of the NeurIPS 2023 competition, from valid bounds: 1 if no row has one above 0.\n\n"
        "Mean over forget rows of 2 / 2^n, n the bin of the row's own bound on epsilon, half a nat"
        " wide (Triantafillou et al., 2024). The competition's own estimator reads about 0.17 for"
        " perfect unlearning."
    ),
    section=ReportSection.COMPOSITE,
    family="composite",
)
