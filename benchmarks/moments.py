"""Input moments and projected steps of a ResNet-18; row passes of JiT and DUCK."""

import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.measure import Fact, against
from benchmarks.problems import images
from unlearnkit.cases.networks import resnet18
from unlearnkit.cases.registry import random_indices
from unlearnkit.catalog import cases, method
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.gradient_projection import (
    GradientProjection,
    LayerProjection,
    RetainedSubspace,
    retained_projections,
)
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.oracles import train_original
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import run_method

ROWS, BATCH, PAIRS = 128, 64, 2
RECIPE = Recipe(lr=0.01, epochs=1, batch_size=BATCH)
MEASURING, SIZE, STEP = 1.5, 1.0, 1.15
SHARES = {"jit": 0.01, "duck": 0.1}
"""Most row passes, as a share of retraining's, for a forget set of 1 %."""


def run() -> Iterator[Fact]:
    """Yield the facts; times are of one processor, so that other processes disturb them less."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from row_passes()
        yield from of_resnet18(images(ROWS))
        yield from of_steps(images(ROWS))
    finally:
        torch.set_num_threads(threads)


def of_resnet18(case: Case) -> Iterator[Fact]:
    """Yield time and size of the moments."""
    torch.manual_seed(0)
    model = resnet18()
    assert case.train is not None
    view, told = View.all(case.train), f"{ROWS} images of 3x32x32 ({case.name}), batch {BATCH}"

    def train(start: nn.Module, rt: Runtime) -> None:
        fit(start, view, case.task, RECIPE, rt, stream="moments")

    yield against(
        "input moments of a ResNet-18 against an epoch forward and backward",
        lambda: InputMoments.measure(model, view, case.task, Runtime()),
        lambda: train(copy.deepcopy(model), Runtime()),
        pairs=PAIRS,
        goal=MEASURING,
        how=told,
        clock=time.process_time,
    )
    moments = InputMoments.measure(model, view, case.task, Runtime())
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    with tempfile.TemporaryDirectory() as folder:
        size = moments.save(Path(folder) / "moments.safetensors").stat().st_size
    yield Fact(
        "file of the input moments against the weights of the ResNet-18",
        size / weights,
        goal=SIZE,
        how=f"{size / 2**20:.1f} MiB against {weights / 2**20:.1f} MiB",
    )


def of_steps(case: Case) -> Iterator[Fact]:
    """Yield the time of a step of a ResNet-18 that is projected, against a free one."""
    torch.manual_seed(0)
    model = resnet18()
    assert case.train is not None
    view = View.all(case.train).pick(torch.arange(BATCH))
    moments = InputMoments.measure(model, view, case.task, Runtime())

    def step(held: list[LayerProjection] | None) -> None:
        twin, rt = copy.deepcopy(model), Runtime()
        if held is not None:
            rt = replace(rt, holds=(GradientProjection(twin, held),))
        fit(twin, view, case.task, RECIPE, rt, stream="moments")

    for share in (0.9, 0.99):
        held = retained_projections(model, moments, RetainedSubspace(threshold=share))
        ranks, widths = sum(one.rank for one in held), sum(one.width for one in held)
        yield against(
            f"a projected step of a ResNet-18 against a free one, threshold {share:g}",
            partial(step, held),
            partial(step, None),
            pairs=PAIRS,
            goal=STEP,
            how=f"both with their set-up; {BATCH} images of 3x32x32 ({case.name}), untrained,"
            f" {ranks:,} of {widths:,} directions held",
            clock=time.process_time,
        )


def row_passes() -> Iterator[Fact]:
    """Yield what JiT and DUCK cost to forget 1 % of the digits."""
    case = cases()["digits"].make()
    assert case.train is not None
    assert case.recipe is not None
    count = len(case.train)
    request = Rows(random_indices(count, round(0.01 * count), "moments/rows"))
    model, stay = train_original(case).model, count - len(request.rows)
    for name, goal in SHARES.items():
        done = run_method(model, case, request, method(name))
        yield Fact(
            f"row passes of {name} as a share of retraining's",
            done.cost.work / (3 * case.recipe.epochs * stay),
            "share",
            goal=goal,
            how=f"{len(request.rows)} of {count} digits, drawn at random; a backward pass is two",
        )
