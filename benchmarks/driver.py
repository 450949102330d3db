"""The driver against a bare loop that does the same fine-tuning."""

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measure import Fact, against
from benchmarks.problems import images
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.finetune import FineTune
from unlearnkit.train.memory_format import channels_last
from unlearnkit.unlearning.run_method import fresh_model, run_method

GOAL = 1.05


def run() -> Iterator[Fact]:
    """Yield the ratio on digits, short and long, and on CIFAR-10-shaped images.

    The driver checks and copies at a fixed cost, which shows in a run of a tenth of a second.
    """
    yield compare(digits(), epochs=12, pairs=41)
    yield compare(digits(), epochs=48, pairs=15)
    yield compare(images(2048), epochs=2, pairs=11)


def compare(case: Case, *, epochs: int, pairs: int) -> Fact:
    """Return the driver's time over the bare loop's, for equal weights at the end."""
    assert case.recipe is not None
    recipe = case.recipe.model_copy(update={"epochs": epochs})
    model = fresh_model(case, Runtime())
    method = FineTune(batch_norm="keep", run=FineTuneSchedule(recipe=recipe))
    keep = case.partition(Classes(3)).retain
    assert keep is not None
    x, y = case.train.x[keep.rows], case.train.y[keep.rows]  # type: ignore[union-attr]  # in memory
    rt = Runtime()
    # As the driver does: what it costs is asked here, not what the layout gains.
    laid_out = channels_last(copy.deepcopy(model))

    def ours() -> nn.Module:
        return run_method(model, case, Classes(3), method).model

    def theirs() -> nn.Module:
        orders = [rt.rng(f"retain/{epoch}") for epoch in range(recipe.epochs)]
        return bare(laid_out, x, y, recipe, orders)

    a, b = ours().state_dict(), theirs().state_dict()
    for name, t in a.items():
        torch.testing.assert_close(t, b[name], rtol=1e-4, atol=1e-6)
    exact = all(torch.equal(t, b[name]) for name, t in a.items())
    return against(
        f"fine-tuning by the driver against a bare loop: {case.name}, {epochs} epochs",
        ours,
        theirs,
        pairs=pairs,
        goal=GOAL,
        how=f"{len(x)} rows, batch {recipe.batch_size}, weights"
        f" {'equal in every bit' if exact else 'equal to 1e-4'}",
    )


def bare(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    recipe: Recipe,
    orders: list[torch.Generator],
) -> nn.Module:
    """Fine-tune a copy of a model: what one writes for one model, one data set and no checks."""
    model = copy.deepcopy(model).train()
    opt = torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    steps = len(orders) * math.ceil(len(x) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for rng in orders:
        for rows in torch.randperm(len(x), generator=rng).split(recipe.batch_size):
            loss = functional.cross_entropy(model(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    return model
