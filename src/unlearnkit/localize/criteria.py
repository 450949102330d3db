"""Criteria: scores of how much each scalar matters to some rows."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.localize.mask_spec import Accumulate
from unlearnkit.localize.units import Block, scatter_units, unit_sums
from unlearnkit.train.schedule import joint_forward

Named = dict[str, Tensor]

TRIES = 64
"""Most units that are silenced for one row."""


def gradients(
    model: nn.Module,
    views: Sequence[View],
    task: Task,
    rt: Runtime,
    *,
    batch_size: int,
    accumulate: Accumulate = "sum",
) -> Named:
    """Return the size of the gradient of each batch's mean loss, added up over batches.

    ``sum``: ``|sum_k g_k|``, where batches may cancel; ``absolute``: ``sum_k |g_k|``.

    Args:
        model: Read only, in eval mode.
        views: The rows; their order makes the batches, none of which has rows of two views.
        task: Supplies each row's loss.
        rt: Device, cost.
        batch_size: Rows in a batch; at 1 each row counts by itself.
        accumulate: Which of the two.

    Returns:
        One tensor per parameter that requires gradients, in float32 or better, by name.
    """
    params = dict(trainable(model))
    total = {
        n: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for n, p in params.items()
    }
    with eval_mode(model), split_batches(batch_size, rt, *views) as batches:
        for batch in batches:
            with rt.autocast():
                loss = task.losses(task.outputs(model, batch), batch).mean()
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            rt.cost.count_backward()
            for name, g in zip(params, grads, strict=True):
                if g is not None:
                    total[name] += g.abs() if accumulate == "absolute" else g
        batches.add(total)
    return {n: t.abs_() for n, t in total.items()}


def layer_order_scores(model: nn.Module, *, deepest: bool) -> Named:
    """Return scores that rise with the order in which layers are registered, or fall with it."""
    names = [n for n, _ in trainable(model)]
    layers = list(dict.fromkeys(n.rpartition(".")[0] for n in names))
    order = {n: place for place, n in enumerate(layers if deepest else reversed(layers), 1)}
    return {
        n: torch.full(p.shape, float(order[n.rpartition(".")[0]]), device=p.device)
        for n, p in trainable(model)
    }


def random_scores(model: nn.Module, rt: Runtime, stream: str) -> Named:
    """Return scores drawn uniformly from a named stream."""
    rng = rt.rng(stream)
    return {n: torch.rand(p.shape, generator=rng).to(p.device) for n, p in trainable(model)}


def critical_memory(
    model: nn.Module,
    forget: View,
    others: View,
    task: Task,
    rt: Runtime,
    units: list[Block],
    *,
    batch_size: int,
) -> list[Tensor]:
    """Return for how many forget rows a unit had to be silenced before the model errs on them.

    For one row at a time: silence the unit whose loss, to first order, harms this row the most and
    a batch of other rows the least, ``sum_j theta_j d(mean loss of others - own loss)/d theta_j``,
    until the row is predicted wrong (Maini et al., ICML 2023, arXiv:2307.09542).

    Args:
        model: Changed, and set back after each row.
        forget: The rows, of a task with exclusive outcomes.
        others: Rows on which the model should stay right.
        task: Supplies losses and errors.
        rt: Device, randomness, cost.
        units: What can be silenced.
        batch_size: Other rows with each forget row.

    Returns:
        Counts, one tensor ``(count,)`` a block.

    Raises:
        UnsupportedError: If outcomes do not exclude each other.
    """
    params = dict(trainable(model))
    start = {n: p.detach().clone() for n, p in params.items()}
    counts = [torch.zeros(b.count) for b in units]
    beside = others.endless_batches(min(batch_size, len(others)), rt, shuffle="localize/others")
    with eval_mode(model):
        for row in forget.batches(1, rt):
            taken = [torch.zeros(b.count, dtype=torch.bool) for b in units]
            for _ in range(TRIES):
                out, own, rest = _two_losses(model, row, next(beside), task)
                if task.log_probs(out) is None:
                    raise UnsupportedError(
                        f"localize: critical_memory asks whether a row is predicted wrong, which"
                        f" {task.name} does not say; use weighted_grad"
                    )
                if bool(task.errors(out.detach(), row).any()):
                    break
                grads = torch.autograd.grad(rest - own, list(params.values()), allow_unused=True)
                rt.cost.count_backward()
                _silence_one(params, grads, units, taken)
            counts = [c + t for c, t in zip(counts, taken, strict=True)]
            with torch.no_grad():
                for n, p in params.items():
                    p.copy_(start[n])
    return counts


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and tensor of each parameter that requires gradients; a tied one once."""
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def _two_losses(
    model: nn.Module, row: Batch, rest: Batch, task: Task
) -> tuple[Tensor, Tensor, Tensor]:
    stay, go = joint_forward(task, model, rest, row)
    return go, task.losses(go, row).mean(), task.losses(stay, rest).mean()


def _silence_one(
    params: Mapping[str, nn.Parameter],
    grads: tuple[Tensor | None, ...],
    units: list[Block],
    taken: list[Tensor],
) -> None:
    """Set the unit with the largest score to zero, and mark it in ``taken``."""
    with torch.no_grad():
        signed = {
            n: torch.zeros_like(p) if g is None else p * g
            for (n, p), g in zip(params.items(), grads, strict=True)
        }
        sums = [s.cpu() for s in unit_sums(units, signed)]
        sums = [s.masked_fill(t, -torch.inf) for s, t in zip(sums, taken, strict=True)]
        best = int(torch.cat(sums).argmax())
        fresh = torch.zeros(sum(map(len, sums)), dtype=torch.bool)
        fresh[best] = True
        one = torch.split(fresh, [len(s) for s in sums])
        for already, now in zip(taken, one, strict=True):
            already.logical_or_(now)
        for n, hit in scatter_units(units, list(one), params).items():
            params[n].masked_fill_(hit, 0)
