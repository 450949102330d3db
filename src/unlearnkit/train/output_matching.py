"""Output matching: training towards given outputs on forget rows and some retained rows."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.train.features import lookup_by_row
from unlearnkit.train.loop import descend


class OutputMatching(FrozenModel):
    """How outputs are matched: the rows, the loss, the length.

    ``mean over rows and outputs of (f(x) - target(x))^2``, plus ``pull * ||theta - theta_0||^2``,
    by Adam (Georgiev et al., arXiv:2410.23232).
    """

    share: Annotated[float, SearchRange(0.01, 0.2)] = Field(0.05, gt=0, le=10)
    """Cost, as a share of retraining on the retained rows; rounded to whole epochs."""

    epochs: int = Field(0, ge=0)
    """Passes over the matched rows; 0 takes as many as ``share`` allows."""

    lr: Annotated[float, SearchRange(1e-4, 1e-2, log=True)] = Field(3e-3, gt=0, allow_inf_nan=False)
    """Learning rate of Adam at the start."""

    fall: float = Field(0.95, gt=0, le=1)
    """Factor of the learning rate from one epoch to the next (paper: gamma)."""

    batch_size: int = Field(64, ge=1)
    """Rows in a step."""

    forget_repeats: int = Field(1, ge=1)
    """How often each forget row is in an epoch (paper: forget multiplier)."""

    retain_rows: Annotated[float, SearchRange(1, 20)] = Field(3.0, ge=0, allow_inf_nan=False)
    """Retained rows that are matched too, as a multiple of the forget rows (paper: retain
    multiplier); drawn once a run, without replacement."""

    pull: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of the squared distance from the original weights (paper: w)."""

    outputs: Literal["centred", "as they are"] = "centred"
    """Whether logits of exclusive classes are matched up to their mean, which no probability
    depends on, or as they are (published)."""

    norm: Literal["frozen", "train"] = "frozen"
    """Statistics of batch normalisation: as they are, or following the matched rows (published)."""


def matched_rows(forget: Tensor, how: OutputMatching, rt: Runtime, stream: str) -> Tensor:
    """Return the positions of the rows that are matched: forget rows, and a draw of the others.

    Args:
        forget: Which of n rows must go ``(n,)``.
        how: How many of each.
        rt: Gives the random stream.
        stream: Its name.

    Returns:
        Positions ``(k,)``; forget rows first, each ``forget_repeats`` times.
    """
    go, stay = forget.nonzero()[:, 0], (~forget).nonzero()[:, 0]
    count = min(len(stay), round(how.retain_rows * len(go)))
    drawn = torch.randperm(len(stay), generator=rt.rng(stream))[:count]
    return torch.cat([go.repeat(how.forget_repeats), stay[drawn]])


def match_outputs(
    model: nn.Module,
    rows: View,
    targets: Tensor,
    how: OutputMatching,
    recipe: Recipe,
    task: Task,
    rt: Runtime,
    *,
    retained: int,
    stream: str,
) -> list[float]:
    """Train a model until its outputs on some rows are given ones.

    Args:
        model: Changed in place.
        rows: The k rows; one that is there twice counts twice.
        targets: Outputs that are wanted ``(k, K)``.
        how: Loss, rate and length.
        recipe: That of the model: its epochs are the unit of ``share``.
        task: Gives outputs.
        rt: Device, randomness, cost.
        retained: How many rows retraining would read in an epoch.
        stream: Name of the random stream that orders the rows.

    Returns:
        The mean loss of each epoch.
    """
    epochs = how.epochs or max(1, round(how.share * recipe.epochs * retained / len(rows)))
    run = Recipe(optimizer="adam", lr=how.lr, epochs=epochs, batch_size=how.batch_size)
    free = how.outputs == "centred"
    wanted = lookup_by_row(rows, centre_outputs(targets, task) if free else targets, rt)
    start = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    steps, taken = rows.steps(how.batch_size), 0

    def loss(batch: Batch) -> Tensor:
        out = task.outputs(model, batch)
        out = centre_outputs(out, task) if free else out
        error = (out - wanted(batch)).square().mean(1)
        if not how.pull:
            return error
        now = (p for p in model.parameters() if p.requires_grad)
        apart = torch.stack([(p - s).square().sum() for p, s in zip(now, start, strict=True)])
        return error.mean() + how.pull * apart.sum()

    def before_step(optimizer: torch.optim.Optimizer) -> None:
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] = how.lr * how.fall ** (taken // steps)
        taken += 1

    return descend(
        model, rows, loss, run, rt, stream=stream, norm=how.norm, before_step=before_step
    )


def centre_outputs(out: Tensor, task: Task) -> Tensor:
    """Return outputs ``(..., K)`` without what the task ignores: the mean of exclusive classes."""
    if out.ndim < 2 or not out.numel():
        return out
    some = out.detach().reshape(-1, out.shape[-1])[:1]
    return out if task.log_probs(some) is None else out - out.mean(-1, keepdim=True)
