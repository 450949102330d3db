"""Squared gradients against a loop over rows, and how many rows are held at once."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.fisher import HELD, TRIED, rows_at_once, squared_gradients
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


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(5, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Choosing(nn.Module):
    """Looks at its values to decide what to do, which vmap does not take."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(30, 4)

    def forward(self, x):
        flat = x.flatten(1)
        return self.head(flat) if flat.sum() > 0 else self.head(-flat)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        h = self.inner(x)[:, None]
        return self.head(functional.scaled_dot_product_attention(h, h, h)[:, 0].mean(1))


MODELS = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "elman": lambda: Recurrent(nn.RNN),
    "value dependent": Choosing,
    "attention": Attention,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_squared_gradients_of_models_that_vmap_finds_awkward_are_those_of_a_loop(make):
    torch.manual_seed(2)
    net = make().double()
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(7, 6, 5, generator=rng, dtype=torch.float64)
    view = View.all(TensorData(x, torch.randint(0, 4, (7,), generator=rng)))
    rt = Runtime()
    got = squared_gradients(net, view, Classification(4), rt)
    torch.testing.assert_close(list(got.values()), by_hand(net, view, 1))
    tried = 2 * TRIED if make is Attention else 0
    assert (rt.cost.forward, rt.cost.backward) == (7 + tried, 7 + tried)


def test_the_fused_kernel_of_a_single_precision_lstm_is_not_asked_of_vmap():
    torch.manual_seed(2)
    net = Recurrent(nn.LSTM)
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(7, 6, 5, generator=rng)
    view = View.all(TensorData(x, torch.randint(0, 4, (7,), generator=rng)))
    got = squared_gradients(net, view, Classification(4), Runtime())
    torch.testing.assert_close(list(got.values()), by_hand(net, view, 1), rtol=1e-4, atol=1e-7)
