"""Each benchmark against a plain transcription ends where the transcription ends."""

import importlib

import pytest
import torch
from torch import nn

from benchmarks.measure import Fact
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.tasks.classification import Classification

WAYS = {
    "bad_teacher": {"epochs": 2, "pairs": 1},
    "driver": {"epochs": 2, "pairs": 1},
    "unsir": {"gone": (0, 2), "pairs": 1},
}


def convolution():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def case():
    rng = torch.Generator().manual_seed(0)
    return Case(
        train=(torch.randn(300, 3, 6, 6, generator=rng), torch.arange(300) % 10),
        task=Classification(10),
        fresh=convolution,
        recipe=Recipe(lr=0.05, momentum=0.9, schedule="cosine", epochs=2, batch_size=32),
        name="a small convolution with batch norm",
    )


@pytest.mark.parametrize("name", WAYS)
def test_both_ways_end_with_the_same_model(name, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(module, "against", lambda what, *_, **__: Fact(what, 1.0))
    found = module.compare(case(), **WAYS[name])
    assert found.value == 1.0
