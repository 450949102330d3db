"""How fast the model learns again what it was made to forget.

All models are copies, taught alike: as the case's recipe says, at half its learning rate, held
constant. Numbers of different runs do not compare. A model that comes back sooner than a
retrained one may still hold what it forgot; a network that was never trained can come back soon
too, and a masked answer comes back late while the features know everything. Read these numbers
next to the head probe.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric
from unlearnkit.stats.intervals import t_half_width, welch_interval
from unlearnkit.train.relearning import (
    RelearningCurve,
    RelearningTarget,
    fine_tuning_recipe,
    published_steps,
    relearn,
    training_losses,
)

SHARE = 0.05
"""How far below the original's score on the forgotten kind of rows is enough (paper: alpha)."""

ORDERS = 5
"""Random orders of the rows, the same for all models."""

CAP = 100
"""Most steps; beyond, a number is censored."""

LOOKED = 128
"""Most never-seen rows of the forgotten kind that say whether the target is met."""

LESSONS = 3
"""Random orders of the oracle-free test; its interval is over rows."""

LESSON_EPOCHS = 3
LESSON_ROWS = 512
"""Most rows of each kind in the oracle-free test."""

PUBLISHED_ROWS = 5_000
"""Most training rows that the published count goes over, ten times for each model."""

NOT_AT_RANDOM = (
    "only for rows drawn at random: of whole classes or owners there are no fresh rows drawn alike"
)
TOO_FEW = "needs two forget rows with never-seen rows of their classes"

SEEN = (Split.FORGET, Split.RETAIN, Split.HELD_OUT)
TWO = (ModelRole.ORIGINAL, ModelRole.UNLEARNED)
ALL = (ModelRole.ORIGINAL, ModelRole.UNLEARNED, ModelRole.ORACLE)


@dataclass(frozen=True)
class Relearned:
    """One model's curves, one an order."""

    curves: tuple[RelearningCurve, ...]

    @property
    def steps(self) -> list[int]:
        """Return the steps of each order, no more than the cap."""
        return [c.steps for c in self.curves]

    @property
    def mean(self) -> float:
        """Return the restricted mean: of the steps, each no more than the cap."""
        return statistics.fmean(self.steps)

    @property
    def censored(self) -> int:
        """Return in how many orders the target was not met."""
        return sum(not c.met for c in self.curves)


@metric(
    Goal.ORACLE,
    low=0.0,
    high=float(CAP),
    reads=TWO,
    splits=SEEN,
    tier=AuditTier.REFERENCE,
    models=True,
    section=ReportSection.RECOVERY,
    unit="steps",
)
def relearn_steps(e: Evidence) -> Score:
    """Steps of training on all rows until the forgotten kind is answered almost as before.

    The target is 95 % of the original's accuracy on never-seen rows of the forgotten kind, or 105 %
    of its loss where there is no accuracy; it is looked at before the first and after each step.
    Mean over 5 orders of rows, each restricted to 100 steps.
    """
    found = _relearned(e, ModelRole.UNLEARNED)
    interval = _over_orders([float(s) for s in found.steps], found)
    return Score(
        found.mean,
        note=_told(e, found),
        interval=interval,
        method="" if interval is None else "Student t over orders",
    )


@metric(
    Goal.ORACLE,
    low=0.0,
    high=float(CAP),
    reads=TWO,
    splits=SEEN,
    tier=AuditTier.REFERENCE,
    models=True,
    section=ReportSection.RECOVERY,
    unit="steps",
)
def relearn_area(e: Evidence) -> Score:
    """Area between the target and the curve of relearning, in steps; the original's is 0.

    Sum over the steps before the target is met of the share of it that is still missing. Mean over
    5 orders. Steadier than the steps, of which the last few hang on single rows.
    """
    found = _relearned(e, ModelRole.UNLEARNED)
    return Score(statistics.fmean(c.area for c in found.curves), note=_told(e, found))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    reads=ALL,
    splits=SEEN,
    ideal=1.0,
    tier=AuditTier.REFERENCE,
    models=True,
    section=ReportSection.RECOVERY,
    unit="ratio",
)
def ain(e: Evidence) -> Score:
    """Anamnesis index: relearn steps of the model over those of the retrained models.

    1 is as retrained; below, something may be left; far above, damage or a trace of its own.
    Restricted means over 5 orders and all oracles. Chundawat et al., IEEE TIFS 2023,
    arXiv:2201.05629.
    """
    mine = _relearned(e, ModelRole.UNLEARNED)
    oracles = [_relearned(e, ModelRole.ORACLE, k) for k in range(e.oracles)]
    below = statistics.fmean(o.mean for o in oracles)
    late = sum(o.censored for o in oracles)
    if below == 0:
        return Score(
            math.nan,
            note="the retrained models meet the target without relearning: there is nothing that"
            " only the forget rows teach",
        )
    if mine.censored == ORDERS and late == ORDERS * len(oracles):
        return Score(math.nan, note=f"neither model nor oracles meet the target in {CAP} steps")
    told = [f"steps {_shown(mine)} over {below:.3g}"]
    if mine.censored:
        told.append(f"at least that: >{CAP} steps in {mine.censored} of {ORDERS} orders")
    if late:
        told.append(f"oracles: >{CAP} steps in {late} of {ORDERS * len(oracles)} runs")
    return Score(mine.mean / below, note="; ".join(told))


@metric(
    Goal.VALUE,
    low=0.0,
    high=math.inf,
    reads=ALL,
    splits=SEEN,
    tasks=["classification", "regression"],
    tier=AuditTier.REFERENCE,
    path="compat",
    models=True,
    section=ReportSection.RECOVERY,
    unit="ratio",
)
def ain_reference(e: Evidence) -> Score:
    """The anamnesis index as published code computes it, for comparison with old tables.

    Adam at 1e-3, batches of 256, one order, one oracle, at most ten passes; no look at the target
    before the first step, so that a model that meets it counts 1; a missed target counts as if it
    were met at the last step. Code: zero-shot-unlearning, ``ain``; for regression
    deep-regression-unlearning, which moreover goes on from where it left the same retrained model,
    so that models that come later look better.
    """
    forget, retain = e.views[Split.FORGET], e.views[Split.RETAIN]
    if forget.data is not retain.data:
        return Score(math.nan, note="published code reads one training set; here are two parts")
    rows = View(forget.data, torch.cat([forget.rows, retain.rows]))
    if len(rows) > PUBLISHED_ROWS:
        return Score(
            math.nan,
            note=f"published code looks at the target after each of {10 * -(-len(rows) // 256)}"
            f" steps; more than {PUBLISHED_ROWS} rows take too long",
        )
    target = _target(e)

    def steps(model: nn.Module) -> int:
        return published_steps(model, rows, target, e.task, e.rt, epochs=10)

    what = ("published steps", target.level, target.rate)
    gold = e.cached(what, steps, ModelRole.ORACLE)
    return Score(e.cached(what, steps, ModelRole.UNLEARNED) / gold)


@metric(
    Goal.ORACLE,
    low=-math.inf,
    high=math.inf,
    splits=[Split.FORGET, Split.HELD_OUT],
    models=True,
    section=ReportSection.RECOVERY,
    unit="loss",
)
def relearn_gap(e: Evidence) -> Score:
    """Mean training loss on fresh rows minus that on forget rows, while copies learn each of them.

    Equally many rows, of the same classes, equal runs: 3 epochs, 3 orders. Above 0, forget rows
    are learned faster than fresh ones, so something of them was left. Needs no oracle; right only
    for forget rows that were drawn at random. A value near 0 proves nothing.
    """
    losses = relearning_losses(e)
    if isinstance(losses, str):
        return Score(math.nan, note=losses)
    return _gap(e, losses)


@metric(
    Goal.VALUE,
    low=-math.inf,
    high=math.inf,
    reads=(),
    splits=[Split.FORGET, Split.HELD_OUT],
    models=True,
    section=ReportSection.RECOVERY,
    unit="loss",
)
def relearn_gap_untrained(e: Evidence) -> Score:
    """The relearn gap of a network that was never trained: 0 unless the rows themselves differ.

    Where it is above 0, forget rows are easier than fresh ones: they were not drawn alike.
    """
    pair = _pair(e)
    if isinstance(pair, str):
        return Score(math.nan, note=pair)
    if e.random is None:
        return Score(
            math.nan, note="needs untrained models; give the case a model factory (fresh=...)"
        )
    return _gap(e, _lessons(e, e.random(0), pair))


def relearning_losses(e: Evidence) -> tuple[Tensor, Tensor] | str:
    """Return each row's mean training loss while copies learn forget rows, and fresh rows.

    Args:
        e: The evidence.

    Returns:
        Losses ``(n,)`` of n forget rows and of n fresh rows, in equal order of classes; or why the
        rows cannot be compared.
    """
    pair = _pair(e)
    if isinstance(pair, str):
        return pair
    return e.cached("lessons", lambda model: _lessons(e, model, pair), ModelRole.UNLEARNED)


def _gap(e: Evidence, losses: tuple[Tensor, Tensor]) -> Score:
    go, fresh = losses
    if not bool(torch.isfinite(go).all() and torch.isfinite(fresh).all()):
        return Score(math.nan, note="learning blew up: a loss is not finite")
    return Score(
        float(fresh.mean() - go.mean()),
        note=f"{len(go)} rows of each kind; {_how(e)}",
        interval=welch_interval(fresh, go),
        method="Welch t over rows",
    )


def _target(e: Evidence) -> RelearningTarget:
    rows = e.views[Split.HELD_OUT].sample(LOOKED, e.rt, "relearn/held out")
    return e.cached(
        "relearn target",
        lambda m: RelearningTarget.near(m, rows, SHARE, e.task, e.rt),
        ModelRole.ORIGINAL,
    )


def _relearned(e: Evidence, who: ModelRole, k: int = 0) -> Relearned:
    target = _target(e)

    def teach(model: nn.Module) -> Relearned:
        curves = []
        for order in range(ORDERS):
            curve = relearn(
                model,
                e.views[Split.FORGET],
                e.views[Split.RETAIN],
                target,
                e.task,
                fine_tuning_recipe(e.recipe),
                e.rt,
                order=order,
                cap=CAP,
            )
            if not curve.steps:
                return Relearned((curve,) * ORDERS)
            curves.append(curve)
        return Relearned(tuple(curves))

    return e.cached(("relearned", target.level, target.rate), teach, who, k)


def _shown(found: Relearned) -> str:
    return f">{CAP}" if found.censored == ORDERS else f"{found.mean:.3g}"


def _told(e: Evidence, found: Relearned) -> str:
    target = _target(e)
    what = f"an accuracy of {target.level:.3f}" if target.rate else f"a loss of {target.level:.3g}"
    late = f">{CAP} in {found.censored} of {ORDERS} orders; " if found.censored else ""
    return f"{late}to {what} on {len(target.rows)} rows; {_how(e)}"


def _how(e: Evidence) -> str:
    recipe = fine_tuning_recipe(e.recipe)
    return f"{recipe.optimizer}, rate {recipe.lr:.3g}, batches of {recipe.batch_size}"


def _over_orders(values: list[float], found: Relearned) -> tuple[float, float] | None:
    if found.censored:
        return None
    centre = statistics.fmean(values)
    half = t_half_width(len(values)) * statistics.stdev(values)
    return max(0.0, centre - half), min(float(CAP), centre + half)


def _pair(e: Evidence) -> tuple[View, View] | str:
    """Return equally many forget and never-seen rows, of equal class counts where there are such.

    In equal order of classes, so that equal orders of positions are equal runs; or why not.
    """
    if not e.at_random:
        return NOT_AT_RANDOM
    forget, fresh = (
        e.views[s].sample(n, e.rt, f"lesson/{s}")
        for s, n in ((Split.FORGET, LESSON_ROWS), (Split.HELD_OUT, 4 * LESSON_ROWS))
    )
    if forget.y.is_floating_point() or forget.y.ndim != 1:
        mine = theirs = [torch.arange(min(len(forget), len(fresh)))]
    else:
        mine, theirs = [], []
        for label in sorted(set(forget.y.tolist())):
            a, b = ((v.y == label).nonzero()[:, 0].cpu() for v in (forget, fresh))
            mine.append(a[: len(b)])
            theirs.append(b[: len(a)])
    go, new = forget.pick(torch.cat(mine)), fresh.pick(torch.cat(theirs))
    return (go, new) if len(go) > 1 else TOO_FEW


def _lessons(e: Evidence, model: nn.Module, pair: tuple[View, View]) -> tuple[Tensor, Tensor]:
    recipe = fine_tuning_recipe(e.recipe, LESSON_EPOCHS)
    first, second = (
        torch.stack(
            [training_losses(model, v, e.task, recipe, e.rt, order=i) for i in range(LESSONS)]
        ).mean(0)
        for v in pair
    )
    return first, second
