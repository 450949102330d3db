"""Request gradient: how the training loss tilts at the trained weights once a request is met."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.loss_gradient import summed_gradient


def request_gradient(p: Problem, rt: Runtime, names: Collection[str]) -> dict[str, Tensor]:
    """Return ``G``: gradients of the corrected rows minus those of the rows as they were, summed.

    At weights that minimise the training loss, ``G`` is the gradient of the loss after the request
    (Warnecke et al., NDSS 2023). A row's loss includes its share of weight decay, ``wd / 2
    |theta|^2``, which cancels where rows are corrected and leaves with rows that go.

    Args:
        p: The problem; gradients are taken at its model as it came, in eval mode.
        rt: Device, cost.
        names: Parameters to differentiate.

    Returns:
        One tensor per name; exactly zero where no row is changed.
    """
    old = summed_gradient(p.model, p.forget, p.task, rt, names)
    if p.corrections is None:
        decay = p.recipe.weight_decay * len(p.forget)
        weights = dict(p.model.named_parameters())
        return {n: -g - decay * weights[n].detach().to(g.dtype) for n, g in old.items()}
    new = summed_gradient(p.model, p.corrections, p.task, rt, names)
    return {n: new[n] - g for n, g in old.items()}


def chosen_parameters(p: Problem, last: int | None) -> list[str]:
    """Return the names of the parameters that a step may move, in the model's order.

    Args:
        p: The problem.
        last: Only the last so many tensors; all that require gradients when None.
    """
    names = [n for n, w in p.model.named_parameters() if w.requires_grad]
    return names if last is None else names[-last:]
