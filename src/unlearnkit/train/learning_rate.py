"""Learning rate of a model whose training is not a recipe: a range test."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.loop import descend

LOW, HIGH, STEPS = 1e-5, 10.0, 90
"""Rates of the first and of the last step, and how many steps there are."""

MEMORY = 0.8
"""Share of the past in the mean of the losses."""

LOST = 4.0
"""The test ends where the mean loss is this many times its least."""

SHARE = 0.1
"""Share of the rate of the least mean loss that is returned."""


def estimate_learning_rate(
    model: nn.Module, view: View, task: Task, recipe: Recipe, rt: Runtime
) -> float:
    """Return a learning rate at which an untrained model trains well.

    The rate grows from step to step by a constant factor; a tenth of the rate at which the running
    mean of the loss is least is returned (L. N. Smith, "Cyclical learning rates for training neural
    networks", WACV 2017, arXiv:1506.01186, section 3.3; the tenth is common practice).

    Args:
        model: Untrained; used up.
        view: Rows with targets.
        task: Gives the loss.
        recipe: Optimiser and batch size; its rate and length play no part.
        rt: Where to train; counts at most 90 steps.

    Returns:
        The rate.
    """
    growth = (HIGH / LOW) ** (1 / (STEPS - 1))
    means: list[float] = []
    held = 0.0

    def loss(batch: Batch) -> Tensor:
        nonlocal held
        rows = task.losses(task.outputs(model, batch), batch)
        held = MEMORY * held + (1 - MEMORY) * rows.detach().mean().item()
        means.append(held / (1 - MEMORY ** (len(means) + 1)))
        return rows

    def grow(opt: torch.optim.Optimizer) -> None:
        for group in opt.param_groups:
            group["lr"] = LOW * growth ** len(means)

    def lost(_: float) -> bool:
        return not means[-1] <= LOST * min(means)

    descend(
        model,
        view,
        loss,
        recipe,
        rt,
        stream="learning rate",
        steps=STEPS,
        before_step=grow,
        after_step=lost,
    )
    known = [m if math.isfinite(m) else math.inf for m in means]
    best = known.index(min(known))
    return SHARE * LOW * math.pow(growth, best)
