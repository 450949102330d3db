"""Squares of the gradients of single rows in another basis, without making more than is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearnkit.linalg.row_gradients import CHUNK, FactoredRows, add_squares


def add_rotated_squares(
    rows: FactoredRows, left: Tensor, right: Tensor, inside: Tensor, every: Tensor | None
) -> None:
    """Add the squares of ``left^T G_n right`` for each row's gradient ``G_n (o, d)``, by group.

    A gradient is a sum of outer products over T places. Where ``T (d + o)`` is less than ``o d``
    the factors are turned and no gradient is made; squares over all d directions then come from the
    products of the inputs at two places (Gram matrix). Otherwise the gradient is made and turned.

    Args:
        rows: The gradients of n rows, of G groups.
        left: Basis of the outputs ``(G, o, o)``.
        right: Orthonormal columns of the inputs ``(G, d, k)``.
        inside: Where the sums over rows are added ``(G, o, k)``.
        every: Where the sums over all d directions of the inputs are added ``(G, o)``; None where
            they are not needed.
    """
    groups, outs, columns = inside.shape
    wide = right.shape[1]
    places = sum(use.places for use in rows.uses)
    short = places * (wide + outs) < outs * wide
    made = places * (wide + outs) + columns * (places if short else outs)
    each = groups * (made if short else made + outs * wide)
    size = max(1, CHUNK // each)
    for i in range(0, rows.rows, size):
        part = slice(i, min(i + size, rows.rows))
        if places > 1 and not short:
            grads = left.mT @ rows.gradients(part, left.dtype)
            if every is not None:
                every += grads.square().sum((0, 3))
            add_squares(grads @ right, inside)
            continue
        parts = [use.factors(part) for use in rows.uses]
        a, g = (_joined([factors[k] for factors in parts]).to(left) for k in (0, 1))
        g = g @ left
        if places == 1:
            g = g[:, :, 0].square().permute(1, 2, 0)
            inside.baddbmm_(g, (a[:, :, 0].transpose(0, 1) @ right).square())
            if every is not None:
                every += (g @ a[:, :, 0].transpose(0, 1).square().sum(2, keepdim=True))[..., 0]
        else:
            add_squares(g.mT @ (a @ right), inside)
            if every is not None:
                every += ((a @ a.mT @ g) * g).sum((0, 2))


def _joined(uses: list[Tensor]) -> Tensor:
    return uses[0] if len(uses) == 1 else torch.cat(uses, 2)
