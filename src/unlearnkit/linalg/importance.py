"""How much each parameter matters to some rows: squared gradients."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.core.data import Batch, Inputs, View, take
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.structure import evaluating
from unlearnkit.core.task import Task

CACHED = 2**21
"""Scalars of gradients that a processor's cache holds, about."""

HELD = 2**26
"""Scalars of gradients held at once."""


def squared_gradients(
    model: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    *,
    unit: Literal["batch", "row"] = "row",
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """Return the mean square of the loss gradient, in float32 or better.

    ``row``: ``1/n sum_i (d loss_i / d theta)^2``, the diagonal of the empirical Fisher with labels
    as given; it does not depend on the batch size. ``batch``: the same with each batch's mean loss
    in place of a row's, as much published code has it; it depends on the batch size.

    Args:
        model: Read only, in eval mode; P parameters that require gradients.
        view: The n rows.
        task: Supplies each row's loss.
        rt: Device, cost.
        unit: What is squared: each row's gradient, or each batch's mean gradient.
        batch_size: For ``batch``, rows in a batch; for ``row``, the most rows differentiated at
            once: fewer where their gradients, ``P`` scalars each, would take much memory.

    Returns:
        One tensor per parameter that requires gradients, of the parameter's shape, by name.
    """
    total = {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    add, size = _by_batch, batch_size
    if unit == "row":
        add, size = _by_row, rows_at_once(sum(t.numel() for t in total.values()), batch_size)
    weight = 0
    with evaluating(model):
        for batch in view.batches(size, rt):
            weight += add(model, batch, task, rt, total)
    return {name: t / max(weight, 1) for name, t in total.items()}


def rows_at_once(scalars: int, most: int) -> int:
    """Return how many rows' gradients to hold at once.

    As many as fit a processor's cache, beyond which chunks get slower (on three convolutions 16
    rows took 0.6 of the time of 64), but no fewer than 8, because a chunk has a cost of its own;
    and never more than a quarter of a gigabyte in float32, but one row.

    Args:
        scalars: Scalars in one row's gradient.
        most: Upper limit.

    Returns:
        The number of rows, at least 1.
    """
    wanted = max(CACHED // max(scalars, 1), min(8, HELD // max(scalars, 1)))
    return max(1, min(most, wanted))


def _by_batch(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime, total: dict[str, Tensor]
) -> int:
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = task.losses(task.outputs(model, batch), batch).mean()
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    rt.cost.count_backward()
    for name, g in zip(params, grads, strict=True):
        if g is not None:
            total[name] += g.to(total[name].dtype).square()
    return 1


def _by_row(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime, total: dict[str, Tensor]
) -> int:
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    row = torch.zeros(1, dtype=torch.long)

    def loss(params: dict[str, Tensor], x: Tensor | dict[str, Tensor], y: Tensor) -> Tensor:
        lone = x[None] if isinstance(x, Tensor) else {k: t[None] for k, t in x.items()}
        one = Batch(lone, y[None], row)
        return task.losses(task.outputs(_Bound(model, params), one), one)[0]

    try:
        grads = _one_by_one(loss, params, batch) if _loops(model) else _at_once(loss, params, batch)
    except InputError:  # a model that vmap does not take; a row that the model does not is told
        grads = _one_by_one(loss, params, batch)
    rt.cost.count_forward(len(batch), graph=True)
    rt.cost.count_backward()
    for name, g in grads.items():
        total[name] += g.to(total[name].dtype).square().sum(0)
    return len(batch)


Loss = Callable[[dict[str, Tensor], Inputs, Tensor], Tensor]


def _at_once(loss: Loss, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    rows = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    with sdpa_kernel(SDPBackend.MATH):  # fused attention would go through vmap row by row
        found: dict[str, Tensor] = rows(params, batch.x, batch.y)
    return found


def _one_by_one(loss: Loss, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    rows = [
        grad(loss)(params, take(batch.x, i), batch.y[i])
        for i in torch.arange(len(batch), device=batch.y.device)
    ]
    return {name: torch.stack([r[name] for r in rows]) for name in params}


def _loops(model: nn.Module) -> bool:
    """Return whether a model has recurrent layers, whose kernels vmap does not take."""
    return any(isinstance(m, nn.RNNBase) for m in model.modules())


class _Bound(nn.Module):
    """A model with some parameters replaced, for functional transforms."""

    def __init__(self, model: nn.Module, params: dict[str, Tensor]) -> None:
        super().__init__()

        @wraps(model.forward)
        def forward(*args: Tensor, **kwargs: Tensor) -> object:
            return functional_call(model, params, args, kwargs)

        self.__dict__["inner"] = model
        self.__dict__["forward"] = forward
        self.training = model.training

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield the parameters of the model itself: their types matter, not their values."""
        inner: nn.Module = self.__dict__["inner"]
        return inner.parameters(recurse)
