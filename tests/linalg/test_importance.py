"""Squared gradients against a loop over rows, and how many rows are held at once."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.importance import HELD, rows_at_once, squared_gradients
from unlearnkit.tasks.classification import Classification


@pytest.fixture
def model():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3)
    return nn.Sequential(
        conv, nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
    ).double()


@pytest.fixture
def view():
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(13, 2, 6, 6, generator=rng, dtype=torch.float64)
    return View.all(TensorData(x, torch.randint(0, 4, (13,), generator=rng)))


def by_hand(model, view, size):
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    parts = torch.arange(len(view)).split(size)
    for part in parts:
        model.zero_grad()
        functional.cross_entropy(model(view.data.x[part]), view.data.y[part]).backward()
        for t, p in zip(total, model.parameters(), strict=True):
            t.add_(p.grad**2 / len(parts))
    return total


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize(("unit", "rows"), [("row", 1), ("batch", None)])
def test_squared_gradients_are_those_of_a_loop(model, view, unit, rows, batch_size):
    got = squared_gradients(
        model, view, Classification(4), Runtime(), unit=unit, batch_size=batch_size
    )
    want = by_hand(model, view, rows or batch_size)
    torch.testing.assert_close(list(got.values()), want)


@pytest.mark.parametrize("scalars", [0, 1, 10_000, 10**6, 10**7, 10**9])
@pytest.mark.parametrize("most", [1, 5, 64])
def test_rows_at_once_are_bounded_by_the_limit_and_by_memory(scalars, most):
    rows = rows_at_once(scalars, most)
    assert 1 <= rows <= most
    assert rows == 1 or rows * scalars <= HELD
