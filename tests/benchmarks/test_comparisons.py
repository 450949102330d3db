"""Each benchmark against a plain transcription ends where the transcription ends."""

import importlib

import pytest

from benchmarks.measure import Fact
from tests.benchmarks.tiny_images import convolution, tiny_images
from unlearnkit.core.recipe import Recipe

WAYS = {
    "bad_teacher": {"epochs": 2, "pairs": 1},
    "driver": {"epochs": 2, "pairs": 1},
    "unsir": {"gone": (0, 2), "pairs": 1},
}
RECIPE = Recipe(lr=0.05, momentum=0.9, schedule="cosine", epochs=2, batch_size=32)


@pytest.mark.parametrize("name", WAYS)
def test_both_ways_end_with_the_same_model(name, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(module, "against", lambda what, *_, **__: Fact(what, 1.0))
    found = module.compare(tiny_images(convolution, rows=300).replace(recipe=RECIPE), **WAYS[name])
    assert found.value == 1.0
