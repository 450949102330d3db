"""Forgotten rows in thirds: what an average over all of them hides.

Memorised rows are where harm sits, and rows that nobody memorised are a negative control: whatever
is found there is no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from unlearnkit.auditing.strong import bootstrap_intervals as intervals
from unlearnkit.auditing.strong.scores import EnsembleScores
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate, estimate_of, finite_or_none
from unlearnkit.report.schema import Stratum

PARTS = ("low", "middle", "high")

SEATS = ("unlearned", "floor")

LEAST_ROWS = 4
"""Rows in a third below which nothing is said of it."""


def strata(s: EnsembleScores, apart: Tensor | None = None) -> Iterator[Stratum]:
    """Yield what is known of each third of the forgotten rows.

    By memorisation: how much surer of a row the models are that had it than those that never did,
    the leave-out estimate (Feldman and Zhang, NeurIPS 2020) with probabilities for right answers.
    By difficulty: how unsure those are that never had it. By entanglement: how near its features
    are to the middle of all rows' (Zhao et al., NeurIPS 2024).

    Args:
        s: The models.
        apart: Distance of each forgotten row's features from that middle, if known.

    Yields:
        Thirds, low to high, of each order; none where a third would have fewer than four rows, or
        all rows are alike, or there are too few models for any number of a third.
    """
    if math.isnan(s.klom("unlearned", "forget").median):
        return
    without, having = _sure(s, "oracle"), _sure(s, "original")
    # The order, and what is told of a third: its mean.
    orders = {
        "memorisation": (having - without, having - without),
        "difficulty": (-without, (0.0 if s.is_regression else 1.0) - without),
    }
    if apart is not None:
        orders["entanglement"] = (-apart, apart)
    for by, (order, level) in orders.items():
        if len(order) < LEAST_ROWS * len(PARTS) or bool((order == order[0]).all()):
            continue
        thirds = order.argsort(stable=True).tensor_split(len(PARTS))
        for part, rows in zip(PARTS, thirds, strict=True):
            yield _stratum(s, by, part, rows, float(level[rows].mean()))


def _sure(s: EnsembleScores, who: str) -> Tensor:
    """Return the mean probability of the right answer, or minus the mean error ``(E,)``."""
    if s.is_regression:
        return -s.answers(who, "forget", "errors").double().mean(0)
    return s.answers(who, "forget").sigmoid().mean(0)


def _stratum(s: EnsembleScores, by: str, part: str, rows: Tensor, level: float) -> Stratum:
    found, near = s.ulira("unlearned"), {w: s.klom(w, "forget").rows for w in SEATS}
    auc = EnsembleEstimate(math.nan, note=found.note)
    floor = math.nan
    if not math.isnan(found.auc):
        mine, theirs = ([(a[:, rows], b[:, rows]) for a, b in s.ratios(seat)] for seat in SEATS)
        auc, floor = intervals.auc_over_models(mine), intervals.auc_over_models(theirs).value
    bound = s.quality("unlearned").corrected_rows[rows]
    return Stratum(
        by=by,
        part=part,
        examples=len(rows),
        level=level,
        auc=estimate_of(auc, len(rows)),
        auc_floor=finite_or_none(floor),
        klom=finite_or_none(float(near["unlearned"][rows].median())),
        klom_floor=finite_or_none(float(near["floor"][rows].median())),
        exposed_rows=None if bool(bound.isnan().any()) else int((bound > 0).sum()),
    )
