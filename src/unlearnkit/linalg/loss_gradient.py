"""Loss gradients: of the summed loss of some rows, by parameter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.ranks import split_batches
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task


def summed_gradient(
    model: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    names: Collection[str] | None = None,
    *,
    batch_size: int = 256,
) -> dict[str, Tensor]:
    """Return ``sum_i d loss_i / d theta`` over some rows, in eval mode.

    Args:
        model: Read only.
        view: The rows, with targets.
        task: Supplies each row's loss.
        rt: Device, cost.
        names: Parameters to differentiate; all that require gradients when None.
        batch_size: Rows at once.

    Returns:
        One tensor per parameter, by name, of the parameter's shape, in float32 or better.
    """
    own = model.named_parameters()
    params = {n: p for n, p in own if (p.requires_grad if names is None else n in names)}
    wide = {n: torch.promote_types(p.dtype, torch.float32) for n, p in params.items()}
    total = {n: torch.zeros_like(p, dtype=wide[n]) for n, p in params.items()}
    with eval_mode(model), torch.enable_grad(), split_batches(batch_size, rt, view) as batches:
        for batch in batches:
            losses = task.losses(task.outputs(model, batch), batch)
            found = torch.autograd.grad(losses.sum(), list(params.values()), allow_unused=True)
            rt.cost.count_backward()
            for n, g in zip(params, found, strict=True):
                if g is not None:
                    total[n] += g.detach().to(wide[n])
        batches.add(total)
    return total
