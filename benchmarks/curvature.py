"""EK-FAC factors of a thin ResNet-18, beside one training epoch."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.measure import Fact, against
from benchmarks.memory import peak
from unlearnkit.cases.networks import resnet18
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model

ROWS = 1000
SIDE = 16
WIDTH = 20
"""Filters of the first stage: a thin ResNet-18."""

GOAL = 2.0
MEMORY = 3.0


def run() -> Iterator[Fact]:
    """Yield the time of the factors in epochs, their size and the peak of memory in models."""
    case, rt = photographs(), Runtime()
    model = fresh_model(case, rt)
    assert case.train is not None
    assert case.recipe is not None
    whole, recipe = View.all(case.train), case.recipe
    yield against(
        f"EK-FAC factors against one training epoch: {ROWS} rows",
        lambda: EkFac.measure(model, whole, case.task, rt),
        lambda: fit(model, whole, case.task, recipe, rt, stream="epoch"),
        pairs=3,
        goal=GOAL,
        how=f"{SIDE} x {SIDE} images, widths {WIDTH} to {8 * WIDTH}; processor time",
        clock=time.process_time,
    )
    child = [sys.executable, "-m", "benchmarks.curvature"]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    how = f"{found['parameters'] / 1e6:.1f} million parameters, {ROWS} rows"
    yield Fact("size of EK-FAC factors, in models", found["kept"], goal=MEMORY, how=how)
    yield Fact(
        "peak memory of EK-FAC factors above the model, in models",
        found["peak"],
        goal=MEMORY,
        how=f"{how}; the layers' inputs and output gradients of 64 rows included",
    )


def photographs() -> Case:
    """Return made images and a ResNet-18 of 1.1 million parameters."""
    rng = torch.Generator().manual_seed(0)
    return Case(
        train=(torch.randn(ROWS, 3, SIDE, SIDE, generator=rng), torch.arange(ROWS) % 10),
        task=Classification(10),
        fresh=partial(resnet18, width=WIDTH),
        recipe=Recipe(lr=0.01, momentum=0.9, batch_size=64, epochs=1),
    )


def measured() -> dict[str, float]:
    """Return the size of the factors and the peak above the model, in models."""
    case, rt = photographs(), Runtime()
    model = fresh_model(case, rt)
    assert case.train is not None
    assert case.recipe is not None
    whole = View.all(case.train)
    fit(model, whole, case.task, case.recipe, rt, stream="epoch")  # activations do not count
    size = 4 * sum(p.numel() for p in model.parameters())
    before = peak()
    found = EkFac.measure(model, whole, case.task, rt)
    above = peak() - before
    kept = {
        id(t): t.numel() * t.element_size()
        for block in found.blocks.values()
        for t in (block.left, block.right, block.values, block.rest)
        if t is not None
    }
    return {"kept": sum(kept.values()) / size, "peak": above / size, "parameters": size / 4}


if __name__ == "__main__":
    print(json.dumps(measured()))
