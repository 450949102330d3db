"""Relearning: how fast a copy of a model learns the forget set again."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.inference import predict
from unlearnkit.core.module_state import upcast_half_precision
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.loop import descend
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.train.schedule import joint_forward

PACE = 0.5
"""Learning rate of the fine-tuning, as a multiple of the recipe's: slow enough to count steps."""

LEAST = 1e-3
"""Smallest loss to reach again, as a share of the loss of a model without knowledge."""


def fine_tuning_recipe(own: Recipe, epochs: int = 1) -> Recipe:
    """Return how copies are fine-tuned: by the model's own recipe at half its rate.

    Numbers compare at equal runs only.
    """
    change = {"lr": PACE * own.lr, "schedule": "constant", "augment": "none", "epochs": epochs}
    return own.model_copy(update=change)


def trainable(model: nn.Module) -> nn.Module:
    """Return a copy whose floating-point parameters can all move, at least in float32."""
    twin = upcast_half_precision(copy.deepcopy(model))
    for p in twin.parameters():
        p.requires_grad_(p.is_floating_point())
    return twin


@dataclass(frozen=True)
class RelearningTarget:
    """What a model must reach again: almost what another model reaches on the same rows.

    Accuracy of ``(1 - share)`` times the other's; for tasks without exclusive outcomes a loss of
    at most ``(1 + share)`` times the other's, and at least a thousandth of that of a model without
    knowledge: a model that fits its rows exactly would leave nothing to reach.
    """

    rows: View
    level: float
    rate: bool
    """Whether the level is an accuracy; else it is a loss."""

    @classmethod
    def near(
        cls, model: nn.Module, rows: View, share: float, task: Task, rt: Runtime
    ) -> RelearningTarget:
        """Return the target that another model sets on some rows: within ``share`` of its value."""
        out = predict(model, rows, task, rt)
        rate = task.log_probs(out[:1]) is not None
        mean = _mean(out, rows, task, rate=rate)
        if rate:
            return cls(rows, (1 - share) * (1 - mean), rate)
        return cls(rows, max((1 + share) * mean, LEAST * task.never_seen), rate)

    def short(self, model: nn.Module, task: Task, rt: Runtime) -> float:
        """Return how far a model falls short, in [0, 1]: 0 is met, 1 is all of it missing."""
        mean = _mean(predict(model, self.rows, task, rt), self.rows, task, rate=self.rate)
        if self.rate:
            met, left = 1 - mean >= self.level, 1 - (1 - mean) / self.level if self.level else 0.0
        else:
            met, left = mean <= self.level, 1 - self.level / mean if mean else 0.0
        return 0.0 if met else left if left == left else 1.0


@dataclass(frozen=True)
class RelearningCurve:
    """How far a model fell short before each step, until it met the target or time was up."""

    short: tuple[float, ...]
    met: bool
    """Whether the target was met; else there would have been more steps."""

    @property
    def steps(self) -> int:
        """Return the steps it took; the cap where the target was not met."""
        return len(self.short)

    @property
    def area(self) -> float:
        """Return the area between the target and the curve, in steps; never above ``steps``."""
        return sum(self.short)


def relearn(
    model: nn.Module,
    forget: View,
    retain: View | None,
    target: RelearningTarget,
    task: Task,
    recipe: Recipe,
    rt: Runtime,
    *,
    order: int,
    cap: int,
) -> RelearningCurve:
    """Return how a copy of a model comes back to a target when it is trained on all rows again.

    On the forget rows alone where ``retain`` is None. Each batch holds forget and retain rows in
    proportion, and at least one forget row. The target is checked in eval mode before the first
    and after each step, of ``cap`` at most. ``order`` numbers the random order of the rows: equal
    for models that are compared.
    """
    twin = trainable(model)
    short: list[float] = []

    def met(_: float) -> bool:
        left = target.short(twin, task, rt)
        if left:
            short.append(left)
        return not left

    if met(0.0):
        return RelearningCurve((), met=True)
    whole = len(forget) + (0 if retain is None else len(retain))
    batch = min(recipe.batch_size, whole)
    size = min(max(1, round(batch * len(forget) / whole)), len(forget))
    drops = forget.endless_batches(size, rt, shuffle=f"relearn/{order}/forget")
    recipe = recipe.model_copy(update={"batch_size": max(1, batch - size)})
    if retain is None:
        recipe = recipe.model_copy(update={"batch_size": size})

    def loss(keep: Batch) -> Tensor:
        if retain is None:
            return task.losses(task.outputs(twin, keep), keep).mean()
        drop = next(drops)
        stay, go = joint_forward(task, twin, keep, drop)
        return torch.cat([task.losses(stay, keep), task.losses(go, drop)]).mean()

    with seeded_global_rngs(rt, f"relearn/{order}/layers"):
        descend(
            twin,
            forget if retain is None else retain,
            loss,
            recipe,
            rt,
            stream=f"relearn/{order}/retain",
            steps=cap,
            after_step=met,
        )
    done = len(short) <= cap
    return RelearningCurve(tuple(short[:cap]), met=done)


def published_steps(
    model: nn.Module, rows: View, target: RelearningTarget, task: Task, rt: Runtime, *, epochs: int
) -> int:
    """Return the steps to a target as published code counts them, on a copy.

    Adam at 1e-3, batches of 256, ``epochs`` passes at most, the target checked after each step and
    not before the first; the number comes back even where the target was missed. Code:
    zero-shot-unlearning, ``ain``.
    """
    twin, steps = trainable(model), 0

    def met(_: float) -> bool:
        nonlocal steps
        steps += 1
        return not target.short(twin, task, rt)

    def loss(batch: Batch) -> Tensor:
        return task.losses(task.outputs(twin, batch), batch)

    recipe = Recipe(optimizer="adam", lr=1e-3, batch_size=256, epochs=epochs)
    with seeded_global_rngs(rt, "relearn/published/layers"):
        descend(twin, rows, loss, recipe, rt, stream="relearn/published", after_step=met)
    return steps


def training_losses(
    model: nn.Module, view: View, task: Task, recipe: Recipe, rt: Runtime, *, order: int
) -> Tensor:
    """Return each row's training loss while a copy of a model learns these rows: float64 ``(n,)``.

    The mean over the epochs of the loss that the row had when its turn came: the area under its
    training-loss curve; not finite where training diverged. Views of equal length are read in equal
    ``order``.
    """
    twin = trainable(model)
    total = torch.zeros(len(view.data), dtype=torch.float64)

    def loss(batch: Batch) -> Tensor:
        losses = task.losses(task.outputs(twin, batch), batch)
        total[batch.row] += losses.detach().double().cpu()
        return losses

    with seeded_global_rngs(rt, f"lesson/{order}/layers"):
        descend(twin, view, loss, recipe, rt, stream=f"lesson/{order}")
    return total[view.rows] / recipe.epochs


def _mean(out: Tensor, rows: View, task: Task, *, rate: bool) -> float:
    batch = Batch.of_targets(rows.y, rows.rows)
    values = task.errors(out, batch) if rate else task.losses(out, batch)
    return values.double().mean().item()
