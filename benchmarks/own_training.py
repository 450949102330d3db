"""A user's own training loop: retraining by the library against the bare loop."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measure import Fact, against, seconds
from benchmarks.problems import images
from unlearnkit.cache import Cache
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle
from unlearnkit.unlearning.run_method import fresh_model

GOAL = 1.02


def run() -> Iterator[Fact]:
    """Yield the ratio on digits and on CIFAR-10-shaped images."""
    yield from compare(digits(), epochs=60, pairs=15)
    yield from compare(images(2048), epochs=3, pairs=7)


def compare(whole: Case, *, epochs: int, pairs: int) -> Iterator[Fact]:
    """Yield the time of one retrained model, kept in a cache, over that of the loop.

    Twice: over the time that passed inside the loop in the same call, which noise hits alike, and
    over a call of the loop alone.
    """
    data = whole.train
    assert isinstance(data, TensorData)

    inside: list[float] = []

    def loop(model: nn.Module, rows: Any, seed: int) -> nn.Module:
        start = time.process_time()
        trained = bare(model, *rows, seed, epochs)
        inside.append(time.process_time() - start)
        return trained

    case = Case(
        train=(data.x, data.y), task=whole.task, fresh=whole.fresh, train_model=loop, version="1"
    )
    keep = case.partition(Classes(3)).retain
    assert keep is not None
    x, y = case.train.x[keep.rows], case.train.y[keep.rows]  # type: ignore[union-attr]  # in memory

    def ours() -> nn.Module:
        with tempfile.TemporaryDirectory() as folder:
            return oracle(case, Classes(3), seeds=[1], cache=Cache(folder)).models[0]

    def theirs() -> nn.Module:
        return loop(fresh_model(case, Runtime(seed=1), "train/init"), (x, y), 1)

    a, b = ours().state_dict(), theirs().state_dict()
    exact = all(torch.equal(t, b[name]) for name, t in a.items())
    name = f"{whole.name}, {epochs} epochs"
    ratios = [seconds(ours, time.process_time) / inside[-1] for _ in range(pairs)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    yield Fact(
        f"retraining by train_model against its own time inside the loop: {name}",
        middle, low=low, high=high, goal=GOAL, how=f"{len(x)} rows, processor time, {pairs} times",
    )  # fmt: skip
    yield against(
        f"retraining by train_model against the bare loop: {name}",
        ours,
        theirs,
        pairs=pairs,
        goal=GOAL,
        clock=time.process_time,
        how=f"{len(x)} rows, processor time, weights"
        f" {'equal in every bit' if exact else 'NOT equal'}",
    )


def bare(model: nn.Module, x: torch.Tensor, y: torch.Tensor, seed: int, epochs: int) -> nn.Module:
    """Train a model as people write it, with Adam and a step schedule."""
    rng = torch.Generator().manual_seed(seed)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(opt, max(epochs // 2, 1))
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=rng).split(64):
            opt.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            opt.step()
        schedule.step()
    return model.eval()
