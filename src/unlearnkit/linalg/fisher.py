"""Diagonal of the empirical Fisher: mean squared gradients."""

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.core.data import Batch, Inputs, View, index_rows
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import first_rows
from unlearnkit.core.module_state import eval_mode, largest_magnitude
from unlearnkit.core.ranks import split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.bound_model import BoundModel
from unlearnkit.linalg.row_gradients import LayerCalls, record_layer_calls

CACHED = 2**21
"""Scalars of gradients that a processor's cache holds, about."""

HELD = 2**26
"""Scalars of gradients held at once."""

TRIED = 3
"""Rows that the way by layers is tried on, against slower ways, before it is taken."""


def squared_gradients(
    model: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    *,
    unit: Literal["batch", "row"] = "row",
    batch_size: int = 64,
    by_layer: Collection[str] | None = None,
    into: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the mean square of the loss gradient, in float32 or better.

    ``row``: ``1/n sum_i (d loss_i / d theta)^2``, the diagonal of the empirical Fisher with labels
    as given; it does not depend on the batch size. ``batch``: the same with each batch's mean loss
    in place of a row's, as much published code has it; it depends on the batch size.

    A row's gradient is not made where that can be helped: its squares follow from what a layer
    took and the gradient of what it gave (``row_gradients``). That is tried on a few rows
    first. Parameters for which it does not hold, and all parameters of a model that does not treat
    rows apart, are differentiated row by row.

    Args:
        model: Read only, in eval mode; P parameters that require gradients.
        view: The n rows.
        task: Supplies each row's loss.
        rt: Device, cost.
        unit: What is squared: each row's gradient, or each batch's mean gradient.
        batch_size: For ``batch``, rows in a batch; for ``row``, the most rows differentiated at
            once: fewer where gradients of single rows have to be made and would take much memory.
        by_layer: What ``layered`` found of the model; it is computed when None.
        into: Memory for the result, by name; overwritten, where its type and layout serve.

    Returns:
        One tensor per parameter that requires gradients, of the parameter's shape, by name.
    """
    names = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if by_layer is None:
        by_layer = parameters_with_row_gradients(model, view, task, rt) if unit == "row" else ()
    with eval_mode(model), torch.enable_grad():
        total = {name: _zeros(p, (into or {}).get(name)) for name, p in names.items()}
        whole = {n: t for n, t in total.items() if n in by_layer}
        rest = {n: t for n, t in total.items() if n not in by_layer}
        few = rows_at_once(sum(t.numel() for t in rest.values()), batch_size)
        size = few if unit == "row" and not whole else batch_size
        weight = len(view) if unit == "row" else -(-len(view) // size)
        with split_batches(size, rt, view) as batches:
            for batch in batches:
                if unit == "batch":
                    _by_batch(model, batch, task, rt, total)
                    continue
                if whole:
                    _by_layer(model, batch, task, rt, whole)
                for rows in torch.split(torch.arange(len(batch)), few) if rest else ():
                    _by_row(model, batch.pick(rows.to(batch.y.device)), task, rt, rest)
            batches.add(total)
    return {name: t.div_(max(weight, 1)) for name, t in total.items()}


def _zeros(like: Tensor, memory: Tensor | None) -> Tensor:
    wide = torch.promote_types(like.dtype, torch.float32)
    if memory is None or memory.dtype is not wide or not memory.is_contiguous():
        return torch.zeros_like(like, dtype=wide)
    return memory.detach().zero_()


def parameters_with_row_gradients(
    model: nn.Module, view: View, task: Task, rt: Runtime
) -> frozenset[str]:
    """Return the parameters whose rows' gradients follow from what their layers took and gave.

    Three things are tried on the first rows: that a row alone has the loss that it has among
    others; that the loss of one row has no gradient in another row's place, in any layer; and that
    the rows' gradients add up to the gradient. None where the model does not treat rows
    independently.
    """
    if _loops(model) or not len(view):
        return frozenset()
    batch = first_rows(view, rt, TRIED)
    with eval_mode(model), torch.enable_grad():
        alone = _alone(model, batch, task)
        if alone is None:
            return frozenset()
        rt.cost.count_forward(len(batch), graph=False)
        with record_layer_calls(model) as calls:
            losses = task.losses(task.outputs(model, batch), batch)
        if not losses.requires_grad or not _near(losses.detach(), alone):
            return frozenset()
        return frozenset(_adding_up(model, calls, losses, rt))


def _alone(model: nn.Module, batch: Batch, task: Task) -> Tensor | None:
    """Return the loss of each row by itself; None of a model that vmap does not take."""
    loss = _loss_of_one(model, task)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # with gradients on: fused layers have no vmap
            rows = vmap(loss, in_dims=(None, 0, 0), randomness="different")
            found: Tensor = rows({}, batch.x, batch.y)
    except (InputError, RuntimeError):
        return None
    return found.detach()


def _adding_up(model: nn.Module, calls: LayerCalls, losses: Tensor, rt: Runtime) -> Iterator[str]:
    """Yield the parameters whose rows' gradients are those of single rows, and add up."""
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    middle = len(losses) // 2
    one: tuple[Tensor, ...] = ()
    if calls.edges:  # none where only parameters outside of known layers are trained
        one = torch.autograd.grad(losses[middle], calls.edges, allow_unused=True, retain_graph=True)
    weights = torch.linspace(1, 2, len(losses), dtype=losses.dtype, device=losses.device)
    wanted: list[Tensor | GradientEdge] = [*calls.edges, *params.values()]
    found = torch.autograd.grad(
        (weights * losses).sum(),
        wanted,  # type: ignore[arg-type]  # both kinds at once are taken, too
        allow_unused=True,
    )
    rt.cost.count_backward()
    rt.cost.backward += len(losses)  # back through one graph twice
    for layer, g in zip(calls.layers, one, strict=True):
        if g is not None and g.ndim and bool(g[torch.arange(len(g)) != middle].any()):
            calls.odd.add(layer)
    rows = calls.gradients(found[: len(calls.edges)], len(losses))
    for name, g in zip(params, found[len(calls.edges) :], strict=True):
        if name in rows and g is not None:
            eps, size = torch.finfo(g.dtype).eps, largest_magnitude(g)
            gap = g.to(torch.promote_types(g.dtype, torch.float32)).neg_()
            rows[name].sum_into(gap)
            if largest_magnitude(gap) <= math.sqrt(eps) * size:
                yield name
        elif name not in rows and g is None:
            yield name  # the loss does not depend on it


def _near(a: Tensor, b: Tensor) -> bool:
    """Return whether losses are the same, to half the digits of the coarser one's largest."""
    eps = max(torch.finfo(t.dtype).eps for t in (a, b))
    return float((a - b).abs().max()) <= math.sqrt(eps) * float(b.abs().max())


def rows_at_once(scalars: int, most: int) -> int:
    """Return how many rows' gradients, of so many scalars, to hold at once: 1 to ``most``.

    As many as fit a processor's cache, beyond which chunks get slower (on three convolutions 16
    rows took 0.6 of the time of 64), but no fewer than 8, because a chunk has a cost of its own;
    and never more than a quarter of a gigabyte in float32, but one row.
    """
    wanted = max(CACHED // max(scalars, 1), min(8, HELD // max(scalars, 1)))
    return max(1, min(most, wanted))


def _by_batch(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime, total: dict[str, Tensor]
) -> None:
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = task.losses(task.outputs(model, batch), batch).mean()
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    rt.cost.count_backward()
    for name, g in zip(params, grads, strict=True):
        if g is not None:
            total[name] += g.to(total[name].dtype).square()


def _by_layer(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime, total: dict[str, Tensor]
) -> None:
    with record_layer_calls(model) as calls:
        losses = task.losses(task.outputs(model, batch), batch)
    grads = torch.autograd.grad(losses.sum(), calls.edges, allow_unused=True)
    rt.cost.count_backward()
    for name, rows in calls.gradients(grads, len(batch)).items():
        if name in total:
            rows.squares_into(total[name])


def _by_row(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime, total: dict[str, Tensor]
) -> None:
    params = {n: p.detach() for n, p in model.named_parameters() if n in total}
    loss = _loss_of_one(model, task)
    try:
        grads = _one_by_one(loss, params, batch) if _loops(model) else _at_once(loss, params, batch)
    except InputError:  # a model that vmap does not take; a row that the model does not is told
        grads = _one_by_one(loss, params, batch)
    rt.cost.count_forward(len(batch), graph=True)
    rt.cost.count_backward()
    for name, g in grads.items():
        total[name] += g.to(total[name].dtype).square().sum(0)


def _loss_of_one(model: nn.Module, task: Task) -> "Loss":
    row = torch.zeros(1, dtype=torch.long)

    def loss(params: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
        lone = x[None] if isinstance(x, Tensor) else {k: t[None] for k, t in x.items()}
        one = Batch(lone, y[None], row)
        return task.losses(task.outputs(BoundModel(model, params), one), one)[0]

    return loss


Loss = Callable[[dict[str, Tensor], Inputs, Tensor], Tensor]


def _at_once(loss: Loss, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    rows = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    # Fused attention would go through vmap row by row; other layers that do, torch tells of.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        found: dict[str, Tensor] = rows(params, batch.x, batch.y)
    return found


def _one_by_one(loss: Loss, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    rows = [
        grad(loss)(params, index_rows(batch.x, i), batch.y[i])
        for i in torch.arange(len(batch), device=batch.y.device)
    ]
    return {name: torch.stack([r[name] for r in rows]) for name in params}


def _loops(model: nn.Module) -> bool:
    """Return whether a model has recurrent layers, whose kernels vmap does not take."""
    return any(isinstance(m, nn.RNNBase) for m in model.modules())
