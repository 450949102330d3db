"""Retraining time: processor time of a row pass, from a few steps."""

from __future__ import annotations

import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.loop import descend

STEPS = 3
"""Steps that are run; the first one is not timed."""


def seconds_a_row_pass(
    model: nn.Module, view: View, task: Task, recipe: Recipe, rt: Runtime
) -> float:
    """Return the processor time of a row pass of training, in seconds.

    A row forward is one pass, a row backward two: the unit of ``Cost.work``. The shortest of a few
    steps counts, since other work on the machine only adds to it.

    Args:
        model: Untrained; it is changed.
        view: Rows to train on.
        task: Gives the loss.
        recipe: How the model would be trained.
        rt: Device, randomness; counts the rows.
    """
    stamps: list[float] = []
    rows = min(recipe.batch_size, len(view))

    def loss(batch: Batch) -> Tensor:
        return task.losses(task.outputs(model, batch), batch)

    def stamp(_: float) -> None:
        stamps.append(processor_seconds(rt.device))

    descend(model, view, loss, recipe, rt, stream="time", steps=STEPS, after_step=stamp)
    best = min(b - a for a, b in pairwise(stamps))
    return best / (3 * rows)


def processor_seconds(device: torch.device) -> float:
    """Return a clock: of all threads of this process, or of the wall where an accelerator works."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()
