"""EK-FAC factors of a small residual network, beside one training epoch."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import Fact, against
from benchmarks.memory import peak
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
GOAL = 2.0
MEMORY = 3.0


class Residual(nn.Module):
    """Two convolutions with batch normalisation, and a way around them."""

    def __init__(self, come: int, go: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(come, go, 3, stride, 1, bias=False)
        self.norm_one = nn.BatchNorm2d(go)
        self.two = nn.Conv2d(go, go, 3, 1, 1, bias=False)
        self.norm_two = nn.BatchNorm2d(go)
        self.around = nn.Conv2d(come, go, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, go, h, w)``."""
        inside = self.norm_two(self.two(torch.relu(self.norm_one(self.one(x)))))
        return torch.relu(inside + self.around(x))


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
        how=f"{SIDE} x {SIDE} images, widths 64 to 256; processor time",
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
    """Return made images and a residual network of 1.2 million parameters."""
    rng = torch.Generator().manual_seed(0)

    def fresh() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            Residual(64, 64, 1), Residual(64, 128, 2), Residual(128, 256, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    return Case(
        train=(torch.randn(ROWS, 3, SIDE, SIDE, generator=rng), torch.arange(ROWS) % 10),
        task=Classification(10),
        fresh=fresh,
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
