"""EK-FAC factors of a ResNet-18 over 10,000 rows, beside training epochs."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Fact, seconds
from benchmarks.memory import peak
from benchmarks.problems import images
from unlearnkit.cases.networks import resnet18
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.ekfac import BASIS_ROWS, EkFac
from unlearnkit.train.loop import fit

FEW, MANY, WHOLE = 64, 192, 10_000
"""Rows that are measured, and those that the time is extrapolated to: it is a line in the rows."""

RECIPE = Recipe(lr=0.01, momentum=0.9, batch_size=64, epochs=1)
REPEATS = 3
GOAL, MEMORY = 2.0, 3.0


def run() -> Iterator[Fact]:
    """Yield the time of the factors in epochs, their size and the peak of memory in models."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        case, model = problem()
        ratios = sorted(in_epochs(case, model) for _ in range(REPEATS))
    finally:
        torch.set_num_threads(threads)
    yield Fact(
        f"EK-FAC factors of a ResNet-18 over {WHOLE:,} rows, in training epochs",
        statistics.median(ratios),
        low=ratios[0],
        high=ratios[-1],
        goal=GOAL,
        how=f"images of 3x32x32, eigenvectors from {BASIS_ROWS:,} of the rows; processor time,"
        f" extrapolated from {FEW} and {MANY} rows; range of {REPEATS}",
    )
    child = [sys.executable, "-m", "benchmarks.curvature"]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    how = f"{found['parameters'] / 1e6:.1f} million parameters, {MANY} rows"
    yield Fact("size of the EK-FAC factors, in models", found["kept"], goal=MEMORY, how=how)
    yield Fact(
        "peak memory of measuring them above that of training in batches of 64, in models",
        found["peak"],
        goal=MEMORY,
        how=f"{how}, the factors included",
    )


def problem() -> tuple[Case, nn.Module]:
    """Return images and an untrained ResNet-18."""
    torch.manual_seed(0)
    return images(MANY), resnet18()


def in_epochs(case: Case, model: nn.Module) -> float:
    """Return the time of the factors over all rows, as a multiple of an epoch's."""
    assert case.train is not None
    rt, many = Runtime(), View.all(case.train)
    few = many.pick(torch.arange(FEW))

    def factors(view: View, basis: int) -> float:
        return seconds(
            lambda: EkFac.measure(model, view, case.task, rt, basis_rows=basis), time.process_time
        )

    def epoch() -> object:
        return fit(model, many, case.task, RECIPE, rt, stream="epoch")

    epoch()
    small, second, both = factors(few, FEW), factors(many, FEW), factors(many, MANY)
    first_pass, second_pass = (t / (MANY - FEW) for t in (both - second, second - small))
    fixed = small - FEW * (first_pass + second_pass)
    whole = fixed + BASIS_ROWS * first_pass + WHOLE * second_pass
    return whole / (seconds(epoch, time.process_time) * WHOLE / MANY)


def measured() -> dict[str, float]:
    """Return the size of the factors and the peak above training, in models."""
    torch.set_num_threads(1)
    case, model = problem()
    assert case.train is not None
    rt, whole = Runtime(), View.all(case.train)
    fit(model, whole, case.task, RECIPE, rt, stream="epoch")
    size = 4 * sum(p.numel() for p in model.parameters())
    before = peak()
    found = EkFac.measure(model, whole, case.task, rt, basis_rows=FEW)
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
