"""How much of the forgotten classes the features below the last layer still hold.

A last layer that answers rightly can hide features that know everything: it is taken off, and a
linear probe put in its place. No number here means anything alone: features of a model that never
saw a class tell it from others too, and so do those of an untrained network. Read it next to both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric
from unlearnkit.train.early_stopping import rows_of_removed_classes
from unlearnkit.train.features import features

SEEN = (Split.FORGET, Split.RETAIN, Split.HELD_OUT, Split.TEST)
RIDGE = 0.1
"""Penalty of the probe, for features of unit mean square: strong, so that only what stands out in
the features counts. Weak probes find every class in every model."""

ROWS = 1_000
"""Most rows of each kind that the probe is fitted to, and that it is judged on."""

ROUNDING = 1e-9
"""Spread of features, relative to their size, below which they are constant."""

UNTRAINED = 5
NO_CLASS = "no whole class was forgotten: there is nothing to probe for"
NO_FACTORY = "needs untrained models; give the case a model factory (fresh=...)"
NO_FEATURES = "the last layer of the model is not given one tensor with one entry a row"


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    splits=SEEN,
    tasks=["classification"],
    unit="squared error",
    models=True,
    section=ReportSection.RECOVERY,
)
def head_probe(e: Evidence) -> Score:
    """Error of a new linear head that tells forgotten from kept classes by the old features.

    Ridge regression on frozen features to +1 for forgotten and -1 for kept classes, both of equal
    weight, fitted to training rows; the number is the mean squared error on never-seen rows. 1:
    no difference; 0: all. The aim is the retrained model's value; below it, and below that of
    untrained networks, the features still hold the class.
    """
    views = _views(e)
    if views is None:
        return Score(math.nan, note=NO_CLASS)
    return _score(e.cached("probe", lambda model: _error(e, model, views), ModelRole.UNLEARNED))


@metric(
    Goal.VALUE,
    low=0.0,
    high=math.inf,
    reads=(),
    splits=SEEN,
    tasks=["classification"],
    unit="squared error",
    models=True,
    section=ReportSection.RECOVERY,
)
def head_probe_untrained(e: Evidence) -> Score:
    """The head probe of networks that were never trained: what their random features hold anyway.

    Mean over five of them.
    """
    views = _views(e)
    if views is None:
        return Score(math.nan, note=NO_CLASS)
    if e.random is None:
        return Score(math.nan, note=NO_FACTORY)
    errors = [_error(e, e.random(k), views) for k in range(UNTRAINED)]
    known = [v for v in errors if v is not None]
    return _score(math.fsum(known) / len(known) if known else None)


def _score(error: float | None) -> Score:
    if error is None:
        return Score(math.nan, note=NO_FEATURES)
    return Score(error, note="" if math.isfinite(error) else "features are not finite")


def _views(e: Evidence) -> tuple[View, View, View, View] | None:
    """Return rows of forgotten and kept classes to fit to, then never-seen ones of each."""
    forget, retain, held, test = (e.views[s] for s in SEEN)
    gone = tuple(set(forget.y.tolist()) - set(retain.y.tolist()))
    parts = (
        forget.pick(rows_of_removed_classes(forget, gone)),
        retain,
        held.pick(rows_of_removed_classes(held, gone)),
        test.pick(~rows_of_removed_classes(test, gone)),
    )
    if not all(map(len, parts)):
        return None
    a, b, c, d = (v.sample(ROWS, e.rt, f"probe/{i}") for i, v in enumerate(parts))
    return a, b, c, d


def _error(e: Evidence, model: nn.Module, views: tuple[View, ...]) -> float | None:
    seen = [features(model, view, e.task, e.rt) for view in views]
    if any(x is None for x in seen):
        return None
    fit_go, fit_stay, go, stay = (x for x in seen if x is not None)
    return probe_error(fit_go, fit_stay, go, stay)


def probe_error(fit_go: Tensor, fit_stay: Tensor, go: Tensor, stay: Tensor) -> float:
    """Return the balanced mean squared error of a ridge probe between two kinds of rows.

    ``w = argmin sum_i c_i (w . x_i - y_i)^2 + RIDGE |w|^2`` with ``y`` +1 and -1, weights ``c`` of
    each kind that sum to 1/2, and features centred and scaled so that ``sum_i c_i |x_i|^2 = 1``.

    Args:
        fit_go: Features ``(n, D)`` that the probe is fitted to, of the kind +1.
        fit_stay: The same of the kind -1.
        go: Features that it is judged on, of the kind +1.
        stay: The same of the kind -1.

    Returns:
        The error; 1 where features are constant, nan where they are not finite.
    """
    x, count = torch.cat([fit_go, fit_stay]), (len(fit_go), len(fit_stay))
    weight = torch.cat([torch.full((n,), 0.5 / n, dtype=x.dtype) for n in count])
    y = torch.cat([torch.full((n,), s, dtype=x.dtype) for n, s in zip(count, (1, -1), strict=True)])
    centre = weight @ x
    size = (weight @ (x - centre).square().sum(1)).sqrt()
    whole = (weight @ x.square().sum(1)).sqrt()
    if not bool(torch.isfinite(whole)):
        return math.nan
    if size <= ROUNDING * whole:
        return 1.0
    root = weight.sqrt()
    a, b = (x - centre) / size * root[:, None], y * root
    if not bool(torch.isfinite(a).all()):
        return math.nan
    rows, width = a.shape
    if width <= rows:
        w = torch.linalg.solve(a.T @ a + RIDGE * torch.eye(width, dtype=a.dtype), a.T @ b)
    else:
        w = a.T @ torch.linalg.solve(a @ a.T + RIDGE * torch.eye(rows, dtype=a.dtype), b)
    errors = [((t - centre) / size @ w - s).square().mean() for t, s in ((go, 1), (stay, -1))]
    return float(sum(errors) / 2)
