"""Diagonal of the Fisher: squared gradients under the model's own predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.fisher import parameters_with_row_gradients, squared_gradients

EXACT_CLASSES = 100
"""Most classes over which the expectation is summed; beyond, one class a row is drawn."""


def expected_fisher(
    model: nn.Module, view: View, task: Task, rt: Runtime, *, stream: str
) -> dict[str, Tensor]:
    """Return ``1/n sum_x E_{y ~ p(.|x)} (d log p(y|x) / d theta)^2``, in float32 or better.

    Exact, summed over all classes, up to 100 of them; else each row's class is drawn once from the
    model's prediction. No target is read.

    Args:
        model: Read only, in eval mode.
        view: The n rows.
        task: With exclusive outcomes (``log_probs``).
        rt: Device, cost, draws.
        stream: Name of the random stream that draws classes.

    Returns:
        One tensor per parameter that requires gradients, of the parameter's shape, by name.

    Raises:
        UnsupportedError: If the task has no exclusive outcomes.
    """
    logp = task.log_probs(predict(model, view, task, rt))
    if logp is None:
        raise UnsupportedError(
            f"fisher: {task.name} has no exclusive outcomes; use squared_gradients with the targets"
        )
    classes = logp.shape[-1]
    if classes > EXACT_CLASSES:
        probs = logp.exp().double().cpu()
        drawn = torch.multinomial(probs, 1, generator=rt.rng(stream))[:, 0]
        return squared_gradients(model, _labelled(view, drawn), task, rt)
    weighted = cast("Task", _RootWeighted(task))  # outputs and losses are all that is read
    first = _labelled(view, torch.zeros(len(view), dtype=torch.long))
    by_layer = parameters_with_row_gradients(model, first, weighted, rt)
    total: dict[str, Tensor] = {}
    for label in range(classes):
        rows = _labelled(view, torch.full((len(view),), label))
        part = squared_gradients(model, rows, weighted, rt, by_layer=by_layer)
        part = {n: t.detach() for n, t in part.items()}
        total = {n: total[n] + t for n, t in part.items()} if total else part
    return total


def _labelled(view: View, labels: Tensor) -> View:
    y = torch.zeros(len(view.data), dtype=torch.long)
    y[view.rows] = labels.cpu()
    return View(view.data.with_targets(y), view.rows)


class _RootWeighted:
    """A task whose row losses are times the square root of the label's probability, held fixed."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._task.outputs(model, batch)

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        losses = self._task.losses(out, batch)
        return losses * (-losses.detach() / 2).exp()


def mean_one(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a diagonal scaled so that the mean over all scalars is 1; ones where all are 0."""
    count = sum(t.numel() for t in fisher.values())
    mean = sum(float(t.sum()) for t in fisher.values()) / max(count, 1)
    if not mean:
        return {n: torch.ones_like(t) for n, t in fisher.items()}
    return {n: t / mean for n, t in fisher.items()}
