"""Adaptive unlearning score: kept accuracy over what the model still answers.

Cotogni et al., 2023, arXiv:2312.02052: ``(1 - (A_original - A)) / (1 + D)`` with A the accuracy on
test rows. Both forms hang on one pair of accuracies and say nothing of membership. They exceed 1
where test accuracy rose. The aim is the retrained model's value.
"""

from __future__ import annotations

import math

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric

LABELS = ("classification",)
BOTH = (ModelRole.ORIGINAL, ModelRole.UNLEARNED)


@metric(
    Goal.ORACLE,
    low=0.0,
    high=2.0,
    reads=BOTH,
    splits=[Split.TEST, Split.TEST_FORGET],
    tasks=LABELS,
    unit="ratio",
    section=ReportSection.COMPOSITE,
)
def aus_classes(e: Evidence) -> Score:
    """Adaptive unlearning score for vanished classes: D is the accuracy on their test rows.

    ``(1 - (A_original - A)) / (1 + A_forgotten)``, A on test rows of the classes that remain; about
    0.5 for the untouched model. Known flaws: it rewards an accuracy of 0 even where retrained
    models, of a sub-class say, answer rightly; membership does not enter; it hangs on one pair of
    accuracies. Above 1 where test accuracy rose. Cotogni et al., 2023, arXiv:2312.02052.
    """
    return Score(aus(*_kept(e), _accuracy(e, ModelRole.UNLEARNED, Split.TEST_FORGET)))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=2.0,
    reads=BOTH,
    splits=[Split.TEST, Split.FORGET],
    tasks=LABELS,
    unit="ratio",
    section=ReportSection.COMPOSITE,
)
def aus_random(e: Evidence) -> Score:
    """Adaptive unlearning score for random rows: D is how far their accuracy is from test rows'.

    ``(1 - (A_original - A)) / (1 + |A_forget - A|)``, A on test rows and A_forget on the forget
    rows. Known flaws: a model that kept all of its memory has 1 where it answers test rows as
    rightly as its training rows; membership does not enter. For whole classes this form rewards the
    opposite of the goal: it is then undefined. Cotogni et al., 2023, arXiv:2312.02052.
    """
    if not e.at_random:
        return Score(math.nan, note="the request is not random rows: read aus_classes")
    before, after = _kept(e)
    forget = _accuracy(e, ModelRole.UNLEARNED, Split.FORGET)
    return Score(aus(before, after, abs(forget - after)))


def aus(before: float, after: float, distance: float) -> float:
    """Return ``(1 - (before - after)) / (1 + distance)`` of accuracies in [0, 1]."""
    return (1 - (before - after)) / (1 + distance)


def _kept(e: Evidence) -> tuple[float, float]:
    first, second = (_accuracy(e, who, Split.TEST) for who in BOTH)
    return first, second


def _accuracy(e: Evidence, who: ModelRole, split: Split) -> float:
    return 1 - e.errors(who, split).mean().item()
