"""AUC of an attack's scores, with an interval."""

from __future__ import annotations

import math

from torch import Tensor

from unlearnkit.core.metric import Score
from unlearnkit.stats import roc

AUC_MARGIN = 0.02
"""Largest difference of an attack's AUC from the oracle's that counts as none."""


def auc_score(members: Tensor, others: Tensor) -> Score:
    """Return the AUC of scores ``(n,)`` of members against ``(m,)`` of others, with an interval."""
    area = roc.auc(members, others)
    if math.isnan(area):
        return Score(area, note="a score is not a number: infinite outputs cannot be compared")
    interval = roc.auc_interval(members, others)
    if interval is None:
        return Score(area, note="no interval: one row on a side")
    exact = roc.delong_variance(members, others) > 0
    return Score(
        area, interval=interval, method="DeLong, logit" if exact else "exact, over disjoint pairs"
    )
