"""Toy cases: a tiny problem of each task, for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.errors import UnlearnkitError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.task import Task
from unlearnkit.tasks.causal_lm import CausalLM
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.masked_lm import MaskedLM
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.tasks.seq2seq import Seq2SeqLM

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
    mask_token_id = 0

    def __len__(self) -> int:
        return TOY_LETTERS

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the tokens of a text."""
        return {"input_ids": [1 + ord(letter) % (TOY_LETTERS - 1) for letter in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Return a letter for each token."""
        return "".join(chr(ord("a") + i) for i in ids)


class ToyLanguageModel(nn.Module):
    """Blocks of two layers; each place sees the mean of the places up to it, or of all."""

    def __init__(self, *, both_sides: bool = False) -> None:
        super().__init__()
        self.both_sides = both_sides
        self.tokens = nn.Embedding(TOY_LETTERS, 12)
        self.blocks = nn.ModuleList(nn.Linear(24, 12) for _ in range(2))
        self.head = nn.Linear(12, TOY_LETTERS)

    def forward(self, ids: Tensor, context: Tensor | None = None) -> Tensor:
        """Return logits ``(B, T, V)``; ``context`` ``(B, 1, D)`` is added to all tokens."""
        hidden: Tensor = self.tokens(ids)
        if context is not None:
            hidden = hidden + context
        count = torch.arange(1, hidden.shape[1] + 1, device=ids.device)[:, None]
        for block in self.blocks:
            past = hidden.cumsum(1) / count
            if self.both_sides:
                past = hidden.mean(1, keepdim=True).expand_as(hidden)
            hidden = hidden + torch.tanh(block(torch.cat([hidden, past], -1)))
        out: Tensor = self.head(hidden)
        return out


class ToyTranslator(nn.Module):
    """A toy language model that also sees the mean of what an encoder reads."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = ToyLanguageModel()

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return logits ``(B, T, V)``."""
        read: Tensor = self.decoder.tokens(input_ids).mean(1, keepdim=True)
        out: Tensor = self.decoder(decoder_input_ids, read)
        return out


@register_toy_case("causal_lm")
def _causal_lm(task: CausalLM, seed: int) -> Case:
    """Return sequences of eight letters that count up by an owner's own step."""

    def rows(ids: Tensor) -> tuple[Tensor, Tensor]:
        labels = ids.clone()
        labels[:, :3] = -100
        return ids, labels

    task = CausalLM(processing_class=LetterTokenizer(), loss=task.loss)
    return _letters(task, seed, rows, ToyLanguageModel)


@register_toy_case("masked_lm")
def _masked_lm(task: MaskedLM, seed: int) -> Case:
    """Return the same sequences with three letters behind masks."""

    def rows(ids: Tensor) -> tuple[Tensor, Tensor]:
        hidden = (torch.arange(8) % 3 == 1).expand_as(ids)
        return torch.where(hidden, 0, ids), torch.where(hidden, ids, -100)

    task = MaskedLM(processing_class=LetterTokenizer(), loss=task.loss)
    return _letters(task, seed, rows, partial(ToyLanguageModel, both_sides=True))


@register_toy_case("seq2seq")
def _seq2seq(task: Seq2SeqLM, seed: int) -> Case:
    """Return the same sequences, of which an encoder reads the first three letters."""

    def rows(ids: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, 3:-1]], 1)
        return {"input_ids": ids[:, :3], "decoder_input_ids": before}, ids[:, 3:]

    task = Seq2SeqLM(processing_class=LetterTokenizer(), loss=task.loss)
    return _letters(task, seed, rows, ToyTranslator)


def _letters(
    task: Task, seed: int, rows: Callable[[Tensor], Any], fresh: Callable[[], nn.Module]
) -> Case:
    """Return the case of sequences that count up, in the layout of a task."""
    rng = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Any:
        start = torch.randint(TOY_LETTERS, (count, 1), generator=rng)
        step = 1 + torch.arange(count)[:, None] // 6 % 5
        ids = (start + step * torch.arange(8)) % TOY_LETTERS
        noise = torch.rand(ids.shape, generator=rng) < 0.1
        return rows(torch.where(noise, torch.randint(TOY_LETTERS, ids.shape, generator=rng), ids))

    return Case(
        train=draw(60),
        test=draw(45),
        validation=draw(30),
        task=task,
        fresh=fresh,
        recipe=Recipe(optimizer="adamw", lr=0.01, epochs=10, batch_size=16),
        name=f"toy {task.name}",
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
