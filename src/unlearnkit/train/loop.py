"""The one training loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import Batch, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

Loss = Callable[[Batch], Tensor]
Norm = Literal["train", "frozen"]


def descend(
    model: nn.Module,
    view: View,
    loss: Loss,
    recipe: Recipe,
    rt: Runtime,
    *,
    stream: str,
    norm: Norm = "train",
    after_step: Callable[[float], None] | None = None,
    after_epoch: Callable[[int], bool] | None = None,
) -> list[float]:
    """Minimise a loss over the rows of a view.

    Args:
        model: Changed in place; only parameters that require gradients move. Its train or eval
            flags come back as they were.
        view: Rows to draw batches from.
        loss: From a batch to a scalar.
        recipe: Optimiser, step size, schedule, epochs, batch size.
        rt: Device, precision, randomness, cost.
        stream: Name of the random stream that orders the rows.
        norm: Whether batch-normalisation statistics follow the data or stay as they are.
        after_step: Called after each step with the step's learning rate; may edit parameters.
        after_epoch: Called after each epoch with its number from 0; the run ends when it returns
            True.

    Returns:
        The mean loss of each epoch, weighted by rows.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if not params or not recipe.epochs:
        return []
    opt = recipe.build(params)
    a_pass = -(-len(view) // recipe.batch_size)
    curve: list[float] = []
    step = 0
    with training(model, norm):
        for epoch in range(recipe.epochs):
            seen: list[tuple[Tensor, int]] = []
            for plain in view.batches(recipe.batch_size, rt, shuffle=f"{stream}/{epoch}"):
                batch = augmented(plain, recipe, rt, f"{stream}/augment/{step}")
                lr = recipe.lr * recipe.factor(step, recipe.epochs * a_pass)
                for group in opt.param_groups:
                    group["lr"] = lr
                for p in params:
                    p.grad = None
                with rt.autocast():
                    value = loss(batch)
                rt.backward(value)
                opt.step()
                if after_step is not None:
                    after_step(lr)
                seen.append((value.detach(), len(batch)))
                step += 1
            curve.append(_mean(seen))
            rt.reporter.progress(stream, epoch + 1, recipe.epochs)
            if after_epoch is not None and after_epoch(epoch):
                break
    opt.zero_grad(set_to_none=True)
    return curve


def _mean(seen: list[tuple[Tensor, int]]) -> float:
    """Return the mean of scalars weighted by rows; they are read from the device at once."""
    values = torch.stack([value for value, _ in seen]).tolist()
    rows = [count for _, count in seen]
    return sum(v * n for v, n in zip(values, rows, strict=True)) / sum(rows)


def fit(
    model: nn.Module, view: View, task: Task, recipe: Recipe, rt: Runtime, *, stream: str
) -> list[float]:
    """Train a model on rows with the task's own loss; return the mean loss of each epoch."""

    def loss(batch: Batch) -> Tensor:
        return task.losses(task.outputs(model, batch), batch).mean()

    return descend(model, view, loss, recipe, rt, stream=stream)


@contextmanager
def training(model: nn.Module, norm: Norm = "train") -> Iterator[None]:
    """Put a model in train mode, batch normalisation as asked; restore all flags at the end."""
    flags = [(m, m.training) for m in model.modules()]
    model.train()
    if norm == "frozen":
        for m in model.modules():
            if isinstance(m, _BatchNorm):
                m.eval()
    try:
        yield
    finally:
        for m, was in flags:
            m.training = was


def augmented(batch: Batch, recipe: Recipe, rt: Runtime, stream: str) -> Batch:
    """Return the batch with its images mirrored and shifted at random, if the recipe says so."""
    if recipe.augment == "none" or not isinstance(batch.x, Tensor) or batch.x.ndim != 4:
        return batch
    rng = rt.rng(stream)
    rows, _, height, width = batch.x.shape
    flip = (torch.rand(rows, generator=rng) < 0.5).to(batch.x.device)
    x = torch.where(flip[:, None, None, None], batch.x.flip(-1), batch.x)
    padded = functional.pad(x, (4, 4, 4, 4))
    top = torch.randint(0, 9, (rows, 1, 1), generator=rng).to(x.device)
    left = torch.randint(0, 9, (rows, 1, 1), generator=rng).to(x.device)
    row = torch.arange(height, device=x.device)[None, :, None] + top
    col = torch.arange(width, device=x.device)[None, None, :] + left
    picked = padded[torch.arange(rows, device=x.device)[:, None, None], :, row, col]
    return replace(batch, x=picked.permute(0, 3, 1, 2).contiguous())
