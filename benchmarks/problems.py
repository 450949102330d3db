"""The problems that benchmarks measure on."""

from functools import cache

import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

CIFAR = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=30, batch_size=128
)


def small_conv_net() -> nn.Module:
    """Return an untrained network of three convolutions with batch normalisation, 32x32 input."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@cache
def images(rows: int) -> Case:
    """Return random 3x32x32 images in 10 classes: speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, 32, 32, generator=rng)
    y = torch.randint(0, 10, (rows,), generator=rng)
    return Case(
        train=(x, y),
        task=Classification(10),
        fresh=small_conv_net,
        recipe=CIFAR,
        name="CIFAR-10-shaped",
    )
