"""How often the model is right, split by split."""

from __future__ import annotations

import math

import torch

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, mean, metric

LIKE_FORGET = (Split.HELD_OUT, Split.TEST_FORGET)
KEPT = (Split.RETAIN, Split.TEST)
LABELS = ("classification",)
NUMBERS = ("regression", "multilabel")


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    each=[Split.FORGET],
    unit="fraction",
    tasks=LABELS,
    section=ReportSection.DISTANCE,
    role=MetricRole.KNOWLEDGE,
    higher_is_better=True,
)
@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    each=LIKE_FORGET,
    unit="fraction",
    tasks=LABELS,
    section=ReportSection.DISTANCE,
    role=MetricRole.GENERALIZATION,
    higher_is_better=True,
)
@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    each=KEPT,
    unit="fraction",
    tasks=LABELS,
    section=ReportSection.UTILITY,
    role=MetricRole.UTILITY,
    higher_is_better=True,
)
def accuracy(e: Evidence, split: Split) -> Score:
    """Share of rows whose top class is right.

    On the forget rows the aim is the retrained model's value, not 0: below it, forgetting shows.
    """
    return mean(1 - e.errors(ModelRole.UNLEARNED, split))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    each=[Split.FORGET],
    unit="as targets",
    tasks=NUMBERS,
    section=ReportSection.DISTANCE,
    role=MetricRole.KNOWLEDGE,
    higher_is_better=False,
)
@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    each=LIKE_FORGET,
    unit="as targets",
    tasks=NUMBERS,
    section=ReportSection.DISTANCE,
    role=MetricRole.GENERALIZATION,
    higher_is_better=False,
)
@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    each=KEPT,
    unit="as targets",
    tasks=NUMBERS,
    section=ReportSection.UTILITY,
    role=MetricRole.UTILITY,
    higher_is_better=False,
)
def error(e: Evidence, split: Split) -> Score:
    """Mean error of the rows: absolute error in target units, or share of labels that are wrong.

    On the forget rows the aim is the retrained model's value: above it, forgetting shows.
    """
    return mean(e.errors(ModelRole.UNLEARNED, split))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    splits=[Split.FORGET],
    unit="log-odds",
    section=ReportSection.DISTANCE,
    role=MetricRole.DISTANCE,
)
def margin_spread_forget(e: Evidence) -> Score:
    """Standard deviation of the margins of the forget rows, in log-odds (or target units).

    A model that was taught to answer all of them alike shows here, wherever it answers.
    """
    rows = e.margins(ModelRole.UNLEARNED, Split.FORGET)
    if len(rows) < 2:
        return Score(math.nan, note="needs two forget rows")
    if not torch.isfinite(rows).all():
        return Score(math.nan, note="some margins are infinite: the model rules a class out")
    return Score(rows.std().item())
