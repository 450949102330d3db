"""Retrieval case: originals and oracles are trained with a store of their own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.train_function import TrainFunction, TrainModel
from unlearnkit.retrieval.retrieval_model import RetrievalModel
from unlearnkit.retrieval.retrieval_store import RetrievalStore, stored_rows
from unlearnkit.train.loop import fit


def _not_called(model: nn.Module, data: Any, seed: int) -> nn.Module:
    raise UnsupportedError("retrieval: train with uk.train_original or uk.oracle")


@dataclass(frozen=True)
class RetrievalTraining(TrainFunction):
    """Fill the store with the rows, then train the reader on them."""

    fn: TrainModel = _not_called
    version: str | None = None
    task: Task = field(kw_only=True, compare=False)
    how: Recipe = field(kw_only=True)
    """How the reader is trained."""

    settings: str = field(kw_only=True)
    """Digest of the retriever."""

    def bind(self, view: View, rt: Runtime) -> Callable[[nn.Module], nn.Module]:
        """Return the training on some rows: a function from an untrained to the trained model."""

        def train(model: nn.Module) -> nn.Module:
            assert isinstance(model, RetrievalModel)
            x, y = (t.to(rt.device) for t in stored_rows(view))
            model.store.add(model.retriever, x, y)
            fit(model, view, self.task, self.how, rt, stream="retrieval/rows")
            return model

        return train

    def spec(self) -> dict[str, Any]:
        """Return what names the training in a content address."""
        self.how.check_cached()
        how = self.how.model_dump()
        content = digest({"retriever": self.settings, "training": how})
        return {"name": self.name, "content": content, "training": how}

    @property
    def name(self) -> str:
        """Return the name of the training in messages."""
        return "training with a retrieval store"


@dataclass(frozen=True)
class RetrievalFactory:
    """Builds untrained models with an empty store."""

    retriever: Callable[[], nn.Module]
    reader: Callable[[], nn.Module]
    capacity: int
    width: int
    row: tuple[torch.Tensor, torch.Tensor]
    neighbours: int

    def __call__(self) -> RetrievalModel:
        """Return a new untrained model."""
        store = RetrievalStore(self.capacity, self.width, *self.row)
        return RetrievalModel(self.retriever(), self.reader(), store, neighbours=self.neighbours)


def retrieval_case(case: Case, *, retriever: Callable[[], nn.Module], neighbours: int = 5) -> Case:
    """Return a case whose originals and oracles are trained with a store of their rows.

    ``uk.train_original``, ``uk.oracle``, the audit and the method ``retrieval_memory`` then work as
    for any case: a retrained model has neither seen nor stored the rows that go.

    Args:
        case: Rows ``(x, y)`` of tensors; a recipe; ``fresh`` builds the untrained reader, which is
            called as ``reader(x, passages)``.
        retriever: Builds the frozen retriever, the same one at each call, which must not have been
            trained on these rows.
        neighbours: Rows that the reader gets for an input.

    Returns:
        The case.

    Raises:
        InputError: If it lacks rows, reader or recipe, the retriever is another one at each call,
            or there are fewer rows than neighbours.
    """
    if case.train is None or case.fresh is None or case.recipe is None:
        raise InputError(
            "retrieval_case: needs training rows, a reader and a recipe; give Case(train=(x, y),"
            " fresh=make_reader, recipe=uk.Recipe(...))"
        )
    x, y = stored_rows(View.all(case.train))
    if not 1 <= neighbours <= len(x):
        raise InputError(
            f"retrieval_case: neighbours must be in 1 to {len(x)}, the number of training rows, got"
            f" {neighbours}"
        )
    one, two = (retriever().eval() for _ in range(2))
    if model_digest(one) != model_digest(two):
        raise InputError(
            "retrieval_case: the retriever has other weights at each call; load trained ones, or"
            " draw them from a seed"
        )
    with torch.no_grad():
        width = one(x[:1]).shape[1]
    factory = RetrievalFactory(retriever, case.fresh, len(x), width, (x[0], y[0]), neighbours)
    how = RetrievalTraining(task=case.task, how=case.recipe, settings=model_digest(one))
    return case.replace(fresh=factory, train_model=how, name=f"{case.name} with a store")
