"""Problems that several benchmarks measure on."""

import os
from functools import cache

import torch

from unlearnkit.cases.networks import small_conv
from unlearnkit.catalog import cases
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=20, batch_size=128
)


@cache
def images(rows: int) -> Case:
    """Return rows of CIFAR-10 where ``UNLEARNKIT_DATA`` names them, else random 3x32x32 images."""
    if os.environ.get("UNLEARNKIT_DATA"):
        case = cases()["cifar10_small"].make()
        assert case.train is not None
        train = case.train.pick(torch.arange(rows))
        return case.replace(train=train, recipe=RECIPE, name="CIFAR-10")
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, 32, 32, generator=rng)
    y = torch.arange(rows) % 10
    return Case(
        train=(x, y),
        task=Classification(10),
        fresh=small_conv,
        recipe=RECIPE,
        name="CIFAR-10-shaped images",
    )
