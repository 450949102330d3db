"""Warm restart: a short training at a high rate while weights shrink."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch, Inputs, View, as_named_tensors
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.train.loop import augment, descend

SPAN = 1 / 3
"""Share of a restart, from its start, in which weights are pushed."""


class WarmRestart(FrozenModel):
    """A warm restart: the recipe's own training, shorter and faster, while weights shrink.

    The learning rate falls along a cosine from ``lr`` times the recipe's peak to zero; optimiser,
    momentum, weight decay, batch size and augmentation are the recipe's. Halfway, a run whose
    retained loss is above half of an untrained model's is given up; what is left of it is spent on
    a new one from the same start at half the rate.
    """

    kind: Literal["restart"] = "restart"
    """Restart warm."""

    lr: Annotated[float, SearchRange(0.25, 8, log=True)] = Field(2.0, ge=0, allow_inf_nan=False)
    """Peak learning rate, as a multiple of the recipe's; at 0 weights shrink and no more."""

    share: Annotated[float, SearchRange(0.02, 0.25)] = Field(0.18, ge=0, le=10)
    """Cost, as a share of retraining's on the retained rows; at least one step unless 0."""

    shrink: Annotated[float, SearchRange(0, 2)] = Field(0.5, ge=0, allow_inf_nan=False)
    """Total decoupled shrink, mostly in the first steps: without gradients each parameter would
    end at ``exp(-shrink)`` times its value; 0 is none."""


Run = Annotated[WarmRestart | FineTuneSchedule, Field(discriminator="kind")]
"""How a method trains on: a warm restart, or a recipe as papers print them. Given by ``kind``."""


class LossTerms(NamedTuple):
    """What a loss says about one batch."""

    keep: Tensor
    """Loss of the retained rows, in the task's unit, their mean or one a row ``(B,)``: what the
    guard watches."""

    total: Tensor
    """What the step minimises: a scalar, or the mean of one number a row."""


StepLoss = Callable[[Batch, float], LossTerms]
"""From a batch of retained rows and how much of the run is over, in [0, 1), to its terms."""


@dataclass(frozen=True)
class StepExtras:
    """What a run does besides descending on retained rows."""

    rows: int = 0
    """Most forget rows in one step, forward and backward."""

    share: float = 0.0
    """Share of the steps, from the first, that have them: those where progress is below it."""

    before: int = 0
    """Rows that went forward before the run, such as a teacher's; off the budget."""

    after_step: Callable[[float], None] | None = None
    """Called after each step with its push, see ``decay_weight``; may edit parameters."""


def run_schedule(
    model: nn.Module,
    retain: View,
    loss: StepLoss,
    run: WarmRestart | FineTuneSchedule,
    recipe: Recipe,
    rt: Runtime,
    *,
    never_seen: float,
    stream: str,
    extra: StepExtras | None = None,
) -> list[float]:
    """Minimise a loss over retained rows, by a warm restart or by a plain run.

    Args:
        model: Changed in place.
        retain: Rows to draw batches from.
        loss: From a batch and the progress to its terms.
        run: Which of the two, and its settings.
        recipe: How the model was trained.
        rt: Device, precision, randomness, cost.
        never_seen: The task's loss of a model without knowledge; the guard's unit.
        stream: Name of the random stream that orders the rows.
        extra: What there is besides; pushes of a plain run fall over all of it.

    Returns:
        The mean total of each pass over the rows; empty where the settings move nothing.
    """
    extra = extra or StepExtras()
    if isinstance(run, WarmRestart):
        return warm_restart(
            model, retain, loss, run, recipe, rt, never_seen=never_seen, stream=stream, extra=extra
        )
    own = run.resolve(recipe)
    if own is None:
        return []
    steps = own.epochs * retain.steps(own.batch_size)
    return _go(model, retain, loss, own, rt=rt, stream=stream, steps=steps, span=1.0, extra=extra)


def warm_restart(
    model: nn.Module,
    retain: View,
    loss: StepLoss,
    run: WarmRestart,
    recipe: Recipe,
    rt: Runtime,
    *,
    never_seen: float,
    stream: str,
    extra: StepExtras | None = None,
) -> list[float]:
    """Return the mean total of each pass of a run at a high rate that falls, as weights shrink.

    Retraining costs ``3 * epochs * n`` row passes; ``run.share`` is a share of that. A note says so
    when the run is started again. See ``run_schedule`` for the arguments.
    """
    extra = extra or StepExtras()
    budget = run.share * 3 * recipe.epochs * len(retain)
    if not budget:
        return []
    rows = max(min(recipe.batch_size, len(retain)), len(retain) / retain.steps(recipe.batch_size))
    steps = affordable_steps(budget - extra.before, rows, extra)
    half = steps // 2
    seen: deque[Tensor] = deque(maxlen=max(1, steps // 10))
    start = [t.detach().clone() for t in _tensors(model)]
    halfway, astray = 0.0, False

    def watched(batch: Batch, progress: float) -> LossTerms:
        terms = loss(batch, progress)
        seen.append(terms.keep.detach().mean())
        return terms

    def guard(step: int) -> bool:
        nonlocal halfway, astray
        if step == half:
            halfway = torch.stack(list(seen)).mean().item()
            astray = not halfway <= 0.5 * never_seen
        return astray

    part = partial(_go, model, retain, watched, rt=rt, span=SPAN, shrink=run.shrink, extra=extra)

    def at(rate: float) -> Recipe:
        change = {"lr": rate * recipe.lr, "schedule": "cosine", "warmup_epochs": 0.0}
        return recipe.model_copy(update=change)

    curve = part(at(run.lr), stream=stream, steps=steps, stop=guard)
    if not astray:
        return curve
    with torch.no_grad():
        for t, was in zip(_tensors(model), start, strict=True):
            t.copy_(was)
    left = budget - extra.before - row_passes(steps, rows, extra, done=half)
    rt.note(
        f"warm restart: halfway the loss on retained rows was {halfway:.3g}, above"
        f" half of an untrained model's {never_seen:.3g}; started again from the original at half"
        f" the learning rate, {run.lr / 2:g} times the recipe's"
    )
    again = min(steps - half, affordable_steps(left, rows, extra))
    return curve + part(at(run.lr / 2), stream=f"{stream}/again", steps=again)


def early_batches(
    view: View, size: int, share: float, recipe: Recipe, rt: Runtime, *, stream: str
) -> Callable[[float], Batch | None]:
    """Return the function from progress to the next forget batch, or to None once past ``share``.

    Each pass over the rows has a new order, and new augmentation if the recipe says so.
    """
    turns = enumerate(view.endless_batches(size, rt, shuffle=stream))

    def draw(progress: float) -> Batch | None:
        if progress >= share:
            return None
        turn, plain = next(turns)
        return augment(plain, recipe, rt, f"{stream}/augment/{turn}")

    return draw


def first_epochs(share: float, recipe: Recipe) -> int:
    """Return how many epochs the early share of a plain run is, rounded up."""
    return math.ceil(share * recipe.epochs - 1e-9)


def joint_forward(task: Task, model: nn.Module, keep: Batch, drop: Batch) -> tuple[Tensor, Tensor]:
    """Return outputs on two batches that go through a model as one: ``(B, K)``, ``(F, K)``.

    Batch normalisation then sees few forget rows among many others, and never alone.
    """
    if isinstance(keep.x, Tensor) and isinstance(drop.x, Tensor):
        x: Inputs = torch.cat([keep.x, drop.x])
    else:
        other = as_named_tensors(drop.x)
        x = {name: torch.cat([t, other[name]]) for name, t in as_named_tensors(keep.x).items()}
    y, rows = torch.cat([keep.y, drop.y]), torch.cat([keep.row, drop.row])
    out = task.outputs(model, Batch(x, y, rows, keep.cost))
    return out[: len(keep)], out[len(keep) :]


def decay_weight(step: int, steps: int, span: float = SPAN) -> float:
    """Return a step's share of a push that falls linearly to zero over the first ``span``.

    The share of ``[step, step + 1)`` under the density ``2 / w * max(0, 1 - t / w)`` with
    ``w = span * steps``. All shares of a run sum to 1.
    """
    width = span * steps

    def left(t: float) -> float:
        return max(0.0, 1.0 - t / width) ** 2

    return left(step) - left(step + 1)


def affordable_steps(budget: float, rows: float, extra: StepExtras) -> int:
    """Return the most steps, at least one, that a budget of row passes pays for.

    A row forward is 1, a row backward 2; ``rows`` are the retained rows of a mean step.
    """
    steps = max(1, int(budget / (3 * rows + 3 * extra.share * extra.rows)))
    while steps > 1 and row_passes(steps, rows, extra) > budget:
        steps -= 1
    return steps


def row_passes(steps: int, rows: float, extra: StepExtras, *, done: int | None = None) -> float:
    """Return the cost in row passes of a run of ``steps``, or of the first ``done`` of them."""
    done = steps if done is None else done
    early = bisect_left(range(done), extra.share, key=lambda step: step / steps)
    return 3 * (done * rows + early * extra.rows)


def _go(
    model: nn.Module,
    retain: View,
    loss: StepLoss,
    recipe: Recipe,
    *,
    rt: Runtime,
    stream: str,
    steps: int,
    span: float,
    extra: StepExtras,
    shrink: float = 0.0,
    stop: Callable[[int], bool] | None = None,
) -> list[float]:
    step = 0

    def total(batch: Batch) -> Tensor:
        return loss(batch, step / steps).total

    def after(lr: float) -> bool:
        nonlocal step
        del lr
        if shrink or extra.after_step is not None:
            weight = decay_weight(step, steps, span)
            _shrink(model, shrink * weight)
            if extra.after_step is not None:
                extra.after_step(weight)
        step += 1
        return stop is not None and stop(step)

    return descend(
        model,
        retain,
        total,
        recipe,
        rt,
        stream=stream,
        steps=steps,
        after_step=after,
    )


def _shrink(model: nn.Module, amount: float) -> None:
    if amount:
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.mul_(math.exp(-amount))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())
