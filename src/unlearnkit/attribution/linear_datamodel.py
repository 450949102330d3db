"""Linear datamodels: effects of single training rows, from models of random subsets.

A datamodel takes an output of a model trained on a subset S of n rows to be ``b + sum_i beta_i
1[i in S]`` (Ilyas et al., ICML 2022, arXiv:2202.00622). Ridge regression and the difference in
means (Feldman and Zhang, NeurIPS 2020, arXiv:2008.03703) are linear in the outputs: a sum of
effects is a weighted sum of the models' outputs, with weights that do not depend on the outputs.
So outputs are read once, block by block, and the effects of all rows are never held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError


def ridge_weights(masks: Tensor, along: Tensor, penalties: Tensor) -> Tensor:
    """Return the weights of m models in sums of ridge effects.

    With centred inclusion ``X (m, n)`` the effects of an output ``y (m,)`` are ``beta = (X^T X +
    penalty I)^-1 X^T y``, and ``along beta`` is ``weights y``.

    Args:
        masks: Which rows each model was trained on ``(m, n)``.
        along: Weights of rows in q sums of effects ``(q, n)``, such as 1 for rows that go.
        penalties: Ridge penalties ``(L,)``, above 0.

    Returns:
        Float64 ``(L, q, m)``; over the models they sum to 0.

    Raises:
        InputError: If a penalty is 0 or below.
    """
    if not bool((penalties > 0).all()):
        raise InputError(f"datamodel: penalties must be above 0, got {penalties.tolist()}")
    x = masks.double()
    x = x - x.mean(0)
    along, penalties = along.double(), penalties.double()
    if x.shape[1] <= x.shape[0]:
        values, vectors = torch.linalg.eigh(x.mT @ x)
        inner, outer = along @ vectors, vectors.mT @ x.mT
    else:
        values, vectors = torch.linalg.eigh(x @ x.mT)
        inner, outer = along @ x.mT @ vectors, vectors.mT
    return torch.stack([inner / (values.clamp(min=0) + p) @ outer for p in penalties])


def difference_weights(masks: Tensor, along: Tensor) -> Tensor:
    """Return the weights of m models in sums of differences in means.

    The effect of row i is the mean output of models trained on it minus that of the others.

    Args:
        masks: Which rows each model was trained on ``(m, n)``.
        along: Weights of rows in q sums of effects ``(q, n)``.

    Returns:
        Float64 ``(1, q, m)``, in the form of ``ridge_weights``.

    Raises:
        InputError: If a row that counts is in all models or in none.
    """
    x = masks.double()
    inside = x.sum(0)
    outside = len(x) - inside
    counted = (along != 0).any(0)
    lost = (counted & ((inside == 0) | (outside == 0))).nonzero()[:, 0]
    if len(lost):
        raise InputError(
            f"datamodel: row {int(lost[0])} is in {int(inside[lost[0]])} of {len(x)} models, so its"
            " effect is unknown; give more models"
        )
    each = x / inside.clamp(min=1) - (1 - x) / outside.clamp(min=1)
    return (along.double() @ each.mT)[None]


def lasso_effects(
    gram: Tensor,
    products: Tensor,
    penalty: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    most: int = 5000,
) -> Tensor:
    """Return LASSO effects of many outputs at once.

    Minimises ``1/(2m) ||y - X beta||^2 + penalty ||beta||_1`` for each output, by accelerated
    proximal gradient steps with restarts (Beck and Teboulle, 2009; O'Donoghue and Candes, 2015).

    Args:
        gram: ``X^T X / m (n, n)`` of centred inclusion.
        products: ``X^T y / m (n, T)`` of T centred outputs.
        penalty: Of each output ``(T,)``; from ``max |products|`` upwards all effects are 0.
        start: Where to begin ``(n, T)``; at 0 when None.
        tolerance: Largest step at the end, as a share of the largest effect.
        most: Most steps.

    Returns:
        The effects ``(n, T)``.

    Raises:
        InputError: If it has not converged after ``most`` steps.
    """
    rate = 1 / float(torch.linalg.matrix_norm(gram, 2))
    beta = torch.zeros_like(products) if start is None else start.clone()
    ahead, pace = beta, 1.0
    for _ in range(most):
        moved = ahead - rate * (gram @ ahead - products)
        new = moved.sign() * (moved.abs() - rate * penalty).clamp(min=0)
        step = new - beta
        largest = float(step.abs().max())
        if largest <= tolerance * max(float(new.abs().max()), 1e-12):
            return new
        if float(((ahead - new) * step).sum()) > 0:
            ahead, pace = new, 1.0
        else:
            next_pace = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
            ahead = new + (pace - 1) / next_pace * step
            pace = next_pace
        beta = new
    raise InputError(
        f"datamodel: LASSO has not converged after {most} steps; use the estimator ridge, or a"
        " larger smallest penalty"
    )
