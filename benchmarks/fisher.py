"""The diagonal of the Fisher information of a large perceptron, beside one training epoch."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Fact, against
from benchmarks.memory import peak
from unlearnkit.catalog import methods
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.fisher import squared_gradients
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model, run_method

WIDTH = 3000
SIZES = (300,)
GOAL = 2.0
MEMORY = 2.0


def run() -> Iterator[Fact]:
    """Yield the time of the squares and of the whole of ``ssd`` in epochs, and memory in models."""
    for rows in SIZES:
        yield from timed(rows)
    child = [sys.executable, "-m", "benchmarks.fisher"]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    how = f"{found['parameters'] / 1e6:.1f} million parameters, {SIZES[0]} rows"
    yield Fact(
        "peak memory of squared gradients above the model, in models",
        found["squares"],
        goal=MEMORY,
        how=how,
    )
    yield Fact("peak memory of ssd above the model, in models", found["ssd"], goal=MEMORY, how=how)


def timed(rows: int) -> Iterator[Fact]:
    """Yield both times over an epoch's, for a number of rows."""
    case, rt = perceptron(rows), Runtime()
    model = fresh_model(case, rt)
    assert case.train is not None
    assert case.recipe is not None
    whole, recipe = View.all(case.train), case.recipe

    def epoch() -> None:
        fit(model, whole, case.task, recipe, rt, stream="epoch")

    def squares() -> None:
        squared_gradients(model, whole, case.task, rt)

    def ssd() -> None:
        run_method(model, case, Rows(range(rows // 10)), methods()["ssd"].build(None, rows=None))

    how = f"20.4 million parameters, {rows} rows, batch {recipe.batch_size}; processor time"
    for what, do in (("squared gradients of single rows", squares), ("ssd on all rows", ssd)):
        yield against(
            f"{what} against one training epoch: {rows} rows",
            do,
            epoch,
            pairs=3,
            goal=GOAL,
            how=how,
            clock=time.process_time,
        )


def perceptron(rows: int, wide: int = WIDTH) -> Case:
    """Return made rows of 784 numbers and a perceptron, of 20.4 million parameters by default."""
    rng = torch.Generator().manual_seed(0)

    def fresh() -> nn.Module:
        return nn.Sequential(
            nn.Linear(784, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(),
            nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 10),
        )  # fmt: skip

    return Case(
        train=(torch.randn(rows, 784, generator=rng), torch.arange(rows) % 10),
        task=Classification(10),
        fresh=fresh,
        recipe=Recipe(lr=0.01, momentum=0.9, batch_size=64, epochs=1),
    )


def unlearned(model: nn.Module, case: Case) -> None:
    """Run ``ssd`` as it is by default on a tenth of the rows."""
    run_method(model, case, Rows(range(SIZES[0] // 10)), methods()["ssd"].build())


def measured() -> dict[str, float]:
    """Return the peaks above the model, in models, and the model's parameters."""
    small, rt = perceptron(SIZES[0], 8), Runtime()
    unlearned(fresh_model(small, rt), small)  # so that what is imported meanwhile does not count
    case = perceptron(SIZES[0])
    model = fresh_model(case, rt)
    assert case.train is not None
    parameters = sum(p.numel() for p in model.parameters())
    before = peak()
    squared_gradients(model, View.all(case.train), case.task, rt)
    squares = peak() - before
    unlearned(model, case)
    size = 4 * parameters
    ssd = peak() - before
    return {"squares": squares / size, "ssd": ssd / size, "parameters": parameters}


if __name__ == "__main__":
    print(json.dumps(measured()))
