"""Problems that several benchmarks measure on."""

from functools import cache

import torch

from unlearnkit.cases.networks import small_conv
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=20, batch_size=128
)


@cache
def images(rows: int) -> Case:
    """Return random 3x32x32 images in 10 classes: speed does not depend on what they show."""
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
