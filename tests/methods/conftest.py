"""Small problems whose gradients are known by hand, and one with layers that have a state."""

import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case


def start(net, seed):
    g = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for w in net.parameters():
            w.copy_(torch.randn(w.shape, generator=g, dtype=w.dtype))
    return net


def line_problem(seed=0, rows=20):
    """Return a linear map without bias, float64, and a regression case of rows (N, 3), (N, 1)."""
    g = torch.Generator().manual_seed(seed)

    def draw(n):
        return (
            torch.randn(n, 3, generator=g, dtype=torch.float64),
            torch.randn(n, 1, generator=g, dtype=torch.float64),
        )

    def fresh():
        return nn.Linear(3, 1, bias=False, dtype=torch.float64)

    case = Case(
        train=draw(rows),
        validation=draw(12),
        task=Regression(),
        fresh=fresh,
        recipe=Recipe(lr=0.1, momentum=0.0, epochs=10, batch_size=64),
    )
    return start(fresh(), seed), case


def clouds_problem(seed=0, rows=30):
    """Return a linear classifier of 4 classes, float64, and a case of rows (N, 3), (N,)."""
    g = torch.Generator().manual_seed(seed)
    centre = 2 * torch.randn(4, 3, generator=g, dtype=torch.float64)

    def draw(n):
        y = torch.arange(n) % 4
        return centre[y] + torch.randn(n, 3, generator=g, dtype=torch.float64), y

    def fresh():
        return nn.Linear(3, 4, dtype=torch.float64)

    case = Case(
        train=draw(rows),
        validation=draw(20),
        task=Classification(4),
        fresh=fresh,
        recipe=Recipe(lr=0.1, momentum=0.0, epochs=10, batch_size=64),
    )
    return start(fresh(), seed), case


@pytest.fixture
def line():
    return line_problem


@pytest.fixture
def clouds():
    return clouds_problem


@pytest.fixture(scope="session")
def toy():
    """Return a trained toy classifier of three classes and its case."""
    case = toy_case(Classification(3))
    return train_original(case).model, case


@pytest.fixture(scope="session")
def layered():
    """Return a trained classifier with batch normalisation and dropout, and its case."""

    def fresh():
        return nn.Sequential(
            nn.Linear(6, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Sequential(nn.Linear(16, 3)),
        )

    case = toy_case(Classification(3), 1).replace(fresh=fresh)
    return train_original(case, rt=Runtime()).model, case


def conv_digits():
    """Return 8x8 digits, and a convolutional network with batch normalisation for them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(bunch.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(5))
    train, test = order[:1257], order[1257:]

    def block(a, b, stride):
        return [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    def fresh():
        return nn.Sequential(
            *block(1, 16, 1),
            *block(16, 16, 2),
            *block(16, 16, 1),
            *block(16, 16, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )

    return Case(
        train=(x[train], y[train]),
        test=(x[test], y[test]),
        task=Classification(10),
        fresh=fresh,
        recipe=Recipe(optimizer="adam", lr=0.01, epochs=6, batch_size=64, schedule="cosine"),
    )


@pytest.fixture(scope="session")
def normed_digits():
    """Return a trained convolutional network with batch normalisation, and its case."""
    case = conv_digits()
    return train_original(case).model, case
