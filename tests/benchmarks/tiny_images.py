"""Random images of 3x3 pixels, and networks for them."""

import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

ROWS = 150


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(27, 12), nn.ReLU(), nn.Linear(12, 10))


def convolution():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10)
    )


def tiny_images(network, rows=ROWS):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, 3, 3, generator=rng)
    return Case(
        train=(x, torch.arange(rows) % 10),
        task=Classification(10),
        fresh=network,
        recipe=Recipe(epochs=2, batch_size=16),
        name="tiny images",
    )
