"""Attributed model: a trained model, all rows it was trained on, and which must go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import Data, TensorData, View, as_named_tensors
from unlearnkit.core.digest import tensor_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Problem
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.training import Training
from unlearnkit.train.rng_guard import seeded_global_rngs


@dataclass(frozen=True)
class AttributedModel:
    """What an attribution is made of; n training rows, in their order."""

    model: nn.Module
    """The trained model; read only."""

    task: Task
    train: View
    """The n training rows."""

    forget: Tensor
    """Which of them must go: boolean ``(n,)``, some but not all."""

    training: Training | None = None
    """How models are trained from scratch; None where that is unknown."""

    build: Callable[[int], nn.Module] | None = field(default=None, compare=False)
    """Builds an untrained model from a seed; None where there is no factory."""

    def __post_init__(self) -> None:
        """Refuse a request that names no row, all rows, or rows of another training set.

        Raises:
            InputError: Saying what was named.
        """
        n, named = len(self.train), int(self.forget.sum())
        if self.forget.shape != (n,) or self.forget.dtype != torch.bool:
            raise InputError(
                f"attribution: forget has shape {tuple(self.forget.shape)} for {n} training rows;"
                " give one boolean a row"
            )
        if not 0 < named < n:
            whole = "no row" if not named else "all rows"
            raise InputError(
                f"attribution: the request names {whole} ({named} of {n}); name some and keep some"
            )

    @classmethod
    def of_problem(cls, p: Problem) -> AttributedModel:
        """Return the model of a method's problem, with forget and retain set as one.

        It is ``p.model``, whose parameters may move: to be read before it is changed.
        A request that corrects rows is refused.
        """
        _refuse_corrections(p.corrections)
        train, forget = join_rows(p.forget, p.retain)
        build = None if p.build_from is None else p.fresh
        return cls(p.model, p.task, train, forget, p.training or p.recipe, build)

    @classmethod
    def of_case(cls, model: nn.Module, case: Case, request: ForgetRequest) -> AttributedModel:
        """Return a model of a case.

        Args:
            model: Trained on all rows of the case.
            case: Rows, task, model factory, recipe.
            request: Which rows must go.

        Returns:
            The model with its rows. A request that the case refuses is an ``InputError``: rows that
            were deleted before are not there any more.

        Raises:
            UnsupportedError: If the case has no rows that go, or none that stay.
        """
        parts = case.partition(request)
        _refuse_corrections(parts.corrections)
        if parts.forget is None or parts.retain is None:
            raise UnsupportedError(
                "attribution: needs the rows that go and the rows that stay; give Case(train=...)"
            )
        train, forget = join_rows(parts.forget, parts.retain)
        build = None if case.fresh is None else partial(_built, case)
        return cls(model, case.task, train, forget, case.training, build)

    def check_trainable(self) -> None:
        """Refuse a model that is frozen as a whole: no attribution by gradients is possible.

        Raises:
            InputError: Saying so.
        """
        if not any(p.requires_grad for p in self.model.parameters()):
            raise InputError(
                "attribution: no parameter of the model requires gradients; call"
                " model.requires_grad_(True)"
            )

    @property
    def rows(self) -> Tensor:
        """Return the positions of the rows that must go, among the training rows ``(k,)``."""
        return self.forget.nonzero()[:, 0]

    def request_digest(self) -> str:
        """Return the digest of which rows must go."""
        return tensor_digest(self.forget)


def join_rows(forget: View, retain: View) -> tuple[View, Tensor]:
    """Return the rows of two views as one, in the order of their data, and which are forget rows.

    Args:
        forget: k rows.
        retain: n - k rows, of the same data, or both in memory.

    Returns:
        A view of n rows, and a boolean ``(n,)`` that is true for forget rows.

    Raises:
        UnsupportedError: If they are of two data sets that are read on demand.
    """
    if forget.data is retain.data:
        rows = torch.cat([forget.rows, retain.rows])
        order = rows.argsort()
        gone = torch.arange(len(rows)) < len(forget)
        return View(forget.data, rows[order]), gone[order]
    one, two = forget.data, retain.data
    if not (isinstance(one, TensorData) and isinstance(two, TensorData)):
        raise UnsupportedError(
            "attribution: forget and retain set are two data sets that are read on demand; give the"
            " whole training set and a request: Case(train=...)"
        )
    whole = _concatenated(one.pick(forget.rows), two.pick(retain.rows))
    return View.all(whole), torch.arange(len(whole)) < len(forget)


def _concatenated(one: TensorData, two: TensorData) -> Data:
    y = torch.cat([one.y, two.y])
    if isinstance(one.x, Tensor) and isinstance(two.x, Tensor):
        return TensorData(torch.cat([one.x, two.x]), y)
    mine, theirs = as_named_tensors(one.x), as_named_tensors(two.x)
    return TensorData({k: torch.cat([t, theirs[k]]) for k, t in mine.items()}, y)


def _refuse_corrections(corrections: View | None) -> None:
    if corrections is not None:
        raise UnsupportedError(
            "attribution: predicts what leaving rows out does, not what correcting them does; use"
            " influence_second or warm_restart for a request for features or labels"
        )


def _built(case: Case, seed: int) -> nn.Module:
    assert case.fresh is not None
    with seeded_global_rngs(Runtime(seed=seed), "fresh"):
        return case.fresh()
