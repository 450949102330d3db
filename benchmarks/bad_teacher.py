"""Bad Teacher against its plain transcription, which asks both teachers at each step."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measure import Fact, against
from benchmarks.problems import images
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.bad_teacher import BadTeacher
from unlearnkit.train.teachers import untrained_teacher
from unlearnkit.unlearning.run_method import fresh_model, run_method

GOAL = 0.5


def run() -> Iterator[Fact]:
    """Yield the ratio on CIFAR-10-shaped images and on digits."""
    yield compare(images(2048), epochs=3, pairs=3)
    yield compare(digits(), epochs=10, pairs=11)


def compare(case: Case, *, epochs: int, pairs: int) -> Fact:
    """Return our time over the transcription's, for equal weights at the end."""
    recipe = Recipe(lr=0.01, momentum=0.9, epochs=epochs, batch_size=64)
    model = fresh_model(case, Runtime())
    method = BadTeacher(
        batch_norm="keep", teacher="random", early=1.0, run=FineTuneSchedule(recipe=recipe)
    )
    request = Rows(*range(len(case.train) // 10))  # type: ignore[arg-type]  # in memory
    parts = case.partition(request)
    assert parts.retain is not None
    assert parts.forget is not None
    keep, drop = parts.retain.rows, parts.forget.rows

    def ours() -> nn.Module:
        return run_method(model, case, request, method).model

    def theirs() -> nn.Module:
        return plain(model, case.train.x, keep, drop, recipe)  # type: ignore[union-attr]

    a, b = ours().state_dict(), theirs().state_dict()
    for name, t in a.items():
        apart = (t.double() - b[name].double()).norm()
        assert apart <= 1e-3 + 1e-2 * t.double().norm(), (name, apart)
    return against(
        f"teachers asked once a row against at each step: {case.name}, {epochs} epochs",
        ours,
        theirs,
        pairs=pairs,
        goal=GOAL,
        how=f"{len(keep)} retained and {len(drop)} forget rows, tensors equal to 1 % of their norm",
    )


def plain(
    model: nn.Module, x: torch.Tensor, keep: torch.Tensor, drop: torch.Tensor, recipe: Recipe
) -> nn.Module:
    """Train a student as published: both teachers see every row of every batch."""
    rt = Runtime()
    good = copy.deepcopy(model).eval()
    bad = untrained_teacher(model, rt, "bad_teacher/teacher/0/0")
    student = copy.deepcopy(model).train()
    opt = torch.optim.SGD(student.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    size = max(1, round(recipe.batch_size * len(drop) / len(keep)))

    def forget() -> Iterator[torch.Tensor]:
        turn = 0
        while True:
            name = f"bad_teacher/forget/{turn}"
            yield from drop[torch.randperm(len(drop), generator=rt.rng(name))].split(size)
            turn += 1

    others = forget()
    for epoch in range(recipe.epochs):
        order = keep[torch.randperm(len(keep), generator=rt.rng(f"retain/{epoch}"))]
        for stay in order.split(recipe.batch_size):
            rows = torch.cat([stay, next(others)])
            gone = (torch.arange(len(rows)) >= len(stay)).float()[:, None]
            with torch.no_grad():
                goal = gone * bad(x[rows]).softmax(1) + (1 - gone) * good(x[rows]).softmax(1)
            out = student(x[rows]).log_softmax(1)
            each = functional.kl_div(out, goal, reduction="none").sum(1)
            loss = each[: len(stay)].mean() + each[len(stay) :].sum() / recipe.batch_size
            opt.zero_grad()
            loss.backward()
            opt.step()
    return student
