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
from unlearnkit.tasks.causal_lm import CausalLM
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


TOY_LETTERS = 12
"""Tokens of the toy language model."""


class LetterTokenizer:
    """A tokenizer whose tokens are letters, modulo their number."""

    eos_token_id = 0

    def __len__(self) -> int:
        return TOY_LETTERS

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the tokens of a text."""
        return {"input_ids": [1 + ord(letter) % (TOY_LETTERS - 1) for letter in text]}


class ToyLanguageModel(nn.Module):
    """Blocks of two layers; each place sees the mean of the places up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOY_LETTERS, 12)
        self.blocks = nn.ModuleList(nn.Linear(24, 12) for _ in range(2))
        self.head = nn.Linear(12, TOY_LETTERS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits ``(B, T, V)``."""
        hidden: Tensor = self.tokens(ids)
        count = torch.arange(1, hidden.shape[1] + 1, device=ids.device)[:, None]
        for block in self.blocks:
            past = hidden.cumsum(1) / count
            hidden = hidden + torch.tanh(block(torch.cat([hidden, past], -1)))
        out: Tensor = self.head(hidden)
        return out


@register_toy_case("causal_lm")
def _causal_lm(task: CausalLM, seed: int) -> Case:
    """Return sequences of eight letters that count up by an owner's own step."""
    rng = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        start = torch.randint(TOY_LETTERS, (count, 1), generator=rng)
        step = 1 + torch.arange(count)[:, None] // 6 % 5
        ids = (start + step * torch.arange(8)) % TOY_LETTERS
        noise = torch.rand(ids.shape, generator=rng) < 0.1
        ids = torch.where(noise, torch.randint(TOY_LETTERS, ids.shape, generator=rng), ids)
        labels = ids.clone()
        labels[:, :3] = -100
        return ids, labels

    return Case(
        train=draw(60),
        test=draw(45),
        validation=draw(30),
        task=CausalLM(processing_class=LetterTokenizer(), loss=task.loss),
        fresh=ToyLanguageModel,
        recipe=Recipe(optimizer="adamw", lr=0.01, epochs=10, batch_size=16),
        name="toy causal_lm",
        group=torch.arange(60) // 6,
    )


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
