"""Made-up inputs: optimised against a model that does not move."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.loop import Norm, training

InputLoss = Callable[[Tensor, Batch], Tensor]
"""From outputs ``(M, K)`` on a batch, and the batch with what is moved as its inputs ``(M, ...)``,
to a scalar."""


def drawn_inputs(
    targets: Tensor,
    shape: tuple[int, ...],
    rt: Runtime,
    *,
    stream: str,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Return inputs of independent standard normal numbers.

    Args:
        targets: What each of the M inputs is for ``(M, ...)``.
        shape: Of one input, such as ``(3, 32, 32)``.
        rt: Where they go, where the numbers come from, who counts.
        stream: Name of the random stream.
        dtype: Type of the numbers.

    Returns:
        The batch: ``x (M, *shape)``, the targets, rows numbered from 0.
    """
    x = torch.randn(len(targets), *shape, generator=rt.rng(stream), dtype=dtype)
    rows = torch.arange(len(targets))
    return Batch(x.to(rt.device), targets.to(rt.device), rows, rt.cost)


def optimise_inputs(
    model: nn.Module,
    batch: Batch,
    task: Task,
    loss: InputLoss,
    recipe: Recipe,
    rt: Runtime,
    *,
    steps: int,
    norm: Norm = "frozen",
    shown: Callable[[Tensor], Tensor] | None = None,
) -> Batch:
    """Move a batch's inputs so that a loss of a fixed model's outputs on them falls.

    All inputs go through the model together in each step, whatever their targets are.

    Args:
        model: No parameter changes. Its flags come back as they were.
        batch: Where inputs start: ``x (M, ...)``, one float tensor. It is not changed.
        task: What outputs mean.
        loss: What to minimise. A sum over inputs, or over targets, moves each input as if it were
            alone.
        recipe: Optimiser, step size, schedule; its epochs and batch size are not used.
        rt: Device, precision, cost.
        steps: Steps taken; 0 leaves the inputs where they are.
        norm: With ``frozen`` the model is in eval mode and no buffer changes. With ``train`` it is
            in train mode: inputs are seen through statistics of their own batch, and the model's
            running statistics follow them.
        shown: From what is moved to what the model is given; the same when None.

    Returns:
        The batch with what was moved as its inputs, without a gradient.
    """
    assert isinstance(batch.x, Tensor)
    x = nn.Parameter(batch.x.detach().clone())
    moving = replace(batch, x=x)
    opt = recipe.build([x])
    with freeze(model, norm):
        for step in range(steps):
            for group in opt.param_groups:
                group["lr"] = recipe.lr * recipe.factor(step, steps)
            x.grad = None
            given = moving if shown is None else replace(batch, x=shown(x))
            with rt.autocast():
                value = loss(task.outputs(model, given), moving)
            rt.backward(value)
            opt.step()
    return replace(batch, x=x.detach())


@contextmanager
def freeze(model: nn.Module, norm: Norm = "frozen") -> Iterator[None]:
    """Keep a model's parameters still: no gradient is taken of them; all flags are restored.

    Args:
        model: Put in eval mode, or in train mode where ``norm`` is ``train``.
        norm: Whether normalisation layers and dropout act as in training.

    Yields:
        Nothing.
    """
    flags = [(p, p.requires_grad) for p in model.parameters()]
    with training(model):
        model.train(norm == "train")
        model.requires_grad_(False)
        try:
            yield
        finally:
            for p, was in flags:
                p.requires_grad_(was)
