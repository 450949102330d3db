"""A training step under a mask against one without."""

import time
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Fact, against
from benchmarks.problems import images
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.train.frozen_weights import freeze_outside_mask
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model

GOAL = 1.05


def wide() -> nn.Module:
    """Return a perceptron whose steps are mostly memory traffic: the hard case for a mask."""
    return nn.Sequential(
        nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def run() -> Iterator[Fact]:
    """Yield the ratio of processor times, one thread, on three networks with two optimisers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        broad = digits().replace(fresh=wide, name="digits, 64-1024-1024-10")
        for case, epochs in ((digits(), 6), (broad, 1), (images(512), 1)):
            yield compare(case, epochs, "sgd", pairs=15)
            yield compare(case, epochs, "adam", pairs=15)
    finally:
        torch.set_num_threads(threads)


def compare(case: Case, epochs: int, optimizer: str, *, pairs: int) -> Fact:
    """Return the time of some epochs that hold 0.7 of the scalars over that of free ones."""
    assert case.train is not None
    view = View.all(case.train)
    recipe = Recipe(
        optimizer=optimizer,  # type: ignore[arg-type]  # one of the literals
        lr=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        epochs=epochs,
        batch_size=64,
    )
    model = fresh_model(case, Runtime())
    start = {n: t.clone() for n, t in model.state_dict().items()}
    how = Localizer(budget=0.3, criterion="random", granularity="parameter")
    mask = how.choose(model, view, None, case.task, Runtime())

    def go(*, masked: bool) -> None:
        model.load_state_dict(start)
        rt = freeze_outside_mask(Runtime(), model, mask) if masked else Runtime()
        fit(model, view, case.task, recipe, rt, stream="masked")

    return against(
        f"training under a mask against training without: {case.name}, {optimizer}",
        lambda: go(masked=True),
        lambda: go(masked=False),
        pairs=pairs,
        goal=GOAL,
        how=f"processor time, 1 thread, {epochs * view.steps(64)} steps of 64 rows",
        clock=time.process_time,
    )
