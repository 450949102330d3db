"""Toy cases: a tiny problem of each task, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.errors import UnlearnkitError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.task import Task
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression

ToyCase = Callable[[Any, int], Case]
"""Builds a case that trains in a blink, from a task and a seed."""

TOY_CASES: dict[str, ToyCase] = {}


def register_toy_case(task: str) -> Callable[[ToyCase], ToyCase]:
    """Declare the toy case of a task; the contract of methods and metrics runs on it."""

    def register(build: ToyCase) -> ToyCase:
        if TOY_CASES.setdefault(task, build) is not build:
            raise UnlearnkitError(f"task {task!r} has two toy cases; remove one")
        return build

    return register


def toy_case(task: Task, seed: int = 0) -> Case:
    """Return the toy case of a task; the seed draws the rows.

    Raises:
        UnsupportedError: If none is registered for the task.
    """
    if task.name not in TOY_CASES:
        raise UnsupportedError(
            f"task {task.name!r} has no toy case; declare one with"
            " unlearnkit.testing.register_toy_case"
        )
    return TOY_CASES[task.name](task, seed)


@register_toy_case("classification")
def _classification(task: Classification, seed: int) -> Case:
    """Return Gaussian clouds in six dimensions, one a class."""
    rng = torch.Generator().manual_seed(seed)
    centre = 2.0 * torch.randn(task.classes, 6, generator=rng)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(count) % task.classes
        return centre[y] + torch.randn(count, 6, generator=rng), y

    return _six_inputs(task, draw, task.classes, lr=0.05)


@register_toy_case("multilabel")
def _multilabel(task: MultiLabel, seed: int) -> Case:
    """Return rows whose labels are signs of random projections."""
    rng = torch.Generator().manual_seed(seed)
    plane = torch.randn(6, task.labels, generator=rng)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 6, generator=rng)
        return x, (x @ plane > 0).float()

    return _six_inputs(task, draw, task.labels, lr=0.1)


@register_toy_case("regression")
def _regression(task: Regression, seed: int) -> Case:
    """Return a noisy nonlinear function of six inputs."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(6, task.width, generator=rng)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 6, generator=rng)
        noise = 0.1 * torch.randn(count, task.width, generator=rng)
        return x, torch.tanh(x @ w) + noise

    return _six_inputs(task, draw, task.width * (len(task.quantiles) or 1), lr=0.05)


def _six_inputs(
    task: Task, draw: Callable[[int], tuple[Tensor, Tensor]], width: int, lr: float
) -> Case:
    """Return a case of 60 training rows of ten owners, 45 test and 30 validation rows."""

    def fresh() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, width))

    return Case(
        train=draw(60),
        test=draw(45),
        validation=draw(30),
        task=task,
        fresh=fresh,
        recipe=Recipe(lr=lr, epochs=10, batch_size=16, schedule="cosine"),
        name=f"toy {task.name}",
        group=torch.arange(60) // 6,
    )
