"""Squares of turned gradients, against gradients that are made row by row."""

import pytest
import torch

from unlearnkit.linalg.rotated_squares import add_rotated_squares
from unlearnkit.linalg.row_gradients import CHUNK, FactoredRows, WeightUse

OUTS, WIDE, KEPT = 6, 10, 4


def rows_of(groups, places, count):
    """Rows whose gradient is a sum over one use of the weight for each number of places."""
    rng = torch.Generator().manual_seed(sum(places))
    uses, grads = [], torch.zeros(count, groups, OUTS, WIDE, dtype=torch.float64)
    for t in places:
        a = torch.randn(count, groups, t, WIDE, generator=rng, dtype=torch.float64)
        g = torch.randn(count, groups, t, OUTS, generator=rng, dtype=torch.float64)
        uses.append(WeightUse(lambda part, a=a, g=g: (a[part], g[part]), t, 0, g))
        grads += g.mT @ a
    return FactoredRows(count, tuple(uses), groups), grads


@pytest.mark.parametrize("every", [True, False], ids=["all directions", "kept ones"])
@pytest.mark.parametrize("chunk", [CHUNK, 1], ids=["together", "row by row"])
@pytest.mark.parametrize("places", [(1,), (2,), (9,), (1, 1), (2, 7)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_squares_are_those_of_the_gradients_in_the_basis(monkeypatch, groups, places, chunk, every):
    monkeypatch.setattr("unlearnkit.linalg.rotated_squares.CHUNK", chunk)
    rows, grads = rows_of(groups, places, 5)
    rng = torch.Generator().manual_seed(1)
    square = torch.randn(groups, OUTS, OUTS, generator=rng, dtype=torch.float64)
    left = torch.linalg.qr(square).Q
    tall = torch.randn(groups, WIDE, KEPT, generator=rng, dtype=torch.float64)
    right = torch.linalg.qr(tall).Q
    inside = torch.ones(groups, OUTS, KEPT, dtype=torch.float64)
    whole = torch.ones(groups, OUTS, dtype=torch.float64) if every else None
    add_rotated_squares(rows, left, right, inside, whole)
    turned = left.mT @ grads
    torch.testing.assert_close(inside - 1, (turned @ right).square().sum(0))
    if whole is not None:
        torch.testing.assert_close(whole - 1, turned.square().sum((0, 3)))
