"""Federated case: originals and oracles are trained in rounds by clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import Data, MapData, TensorData, View
from unlearnkit.core.digest import digest, tensor_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.keys import number_owners
from unlearnkit.core.method import Problem
from unlearnkit.core.request import Groups
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.train_function import TrainingOfViews
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, train_in_rounds
from unlearnkit.federated.update_history import UpdateHistory, complete_rounds, training_name

Client = Groups
"""A request for all rows of clients: ``Client("hospital-3")``, ``Client(4, 7)``."""


@dataclass(frozen=True)
class FederatedTraining(TrainingOfViews):
    """Training from scratch in rounds, on whichever rows stay: a client without rows is out."""

    federation: Federation = field(kw_only=True)
    task: Task = field(kw_only=True)
    history: UpdateHistory | None = field(default=None, kw_only=True, compare=False)
    """Where the rounds of trainings on all rows are kept; it changes no result."""

    def row_content(self, data: Data) -> str:
        """Return the digest of the owner of each row."""
        return "" if data.group is None else digest({"owners": tensor_digest(data.group)})

    def spec(self) -> dict[str, Any]:
        """Return what names the training in a content address."""
        for recipe in (self.federation.recipe, *dict(self.federation.client_recipes).values()):
            recipe.check_cached()
        settings = self.federation.model_dump(mode="json")
        return {"name": self.name, "content": digest(settings), "federation": settings}

    @property
    def name(self) -> str:
        """Return the name of the training in messages."""
        return "federated averaging"

    def train(self, model: nn.Module, view: View, rt: Runtime) -> None:
        """Train a model on some rows, in place."""
        clients, history = rows_by_client(view), self.history
        if history is None or len(view) < len(view.data):
            train_in_rounds(model, clients, self.task, self.federation, rt)
            return
        # owners and federation, too: a history may have trainings of several on the same rows
        rows = digest({"rows": view.key(), "owners": self.row_content(view.data)})
        name = training_name(model.state_dict(), f"{rows} {self.federation}", rt.seed)
        history.begin(name)

        def keep(sent: ClientUpdates) -> None:
            history.add(name, sent)

        train_in_rounds(model, clients, self.task, self.federation, rt, after_round=keep)
        history.end(name, model)

    def stored_rounds(self, model: nn.Module, who: str) -> Iterator[ClientUpdates]:
        """Yield the rounds of the training that led to a model, checked; there is a history.

        Args:
            model: The trained model.
            who: The method that asks, for messages.

        Yields:
            The rounds that were kept.

        Raises:
            InputError: If the history is that of other models, or not whole.
        """
        assert self.history is not None
        training = self.history.find(model)
        if training is None:
            raise InputError(
                f"{who}: the history has no training that led to this model; give the history of"
                " the rounds that trained it, or train it again with uk.train_original(case,"
                " cache=...) in a new cache folder, because a cached model is not trained and"
                " leaves no history"
            )
        yield from complete_rounds(self.history, training, model, self.federation.rounds)

    def rounds_to_replay(
        self, model: nn.Module, who: str, clients: Iterable[int], rt: Runtime, note: str,
        *, every: int = 1,
    ) -> Iterator[ClientUpdates]:  # fmt: skip
        """Yield the stored rounds; without a history as many without updates, and a note.

        Args:
            model: The trained model.
            who: The method that asks, for messages.
            clients: Who takes part in rounds without updates.
            rt: Takes the note.
            note: What the method is without a history.
            every: Without a history: which rounds.

        Yields:
            The rounds.
        """
        if self.history is not None:
            yield from self.stored_rounds(model, who)
            return
        rt.note(f"{who}: no update history: {note}")
        for number in range(0, self.federation.rounds, every):
            yield ClientUpdates(number, {}, {}, dict.fromkeys(clients, 1.0))


def federated_case(
    case: Case,
    federation: Federation,
    *,
    clients: Tensor | list[int] | list[str] | None = None,
    history: UpdateHistory | None = None,
) -> Case:
    """Return a case whose originals and oracles are trained by clients in rounds.

    Oracles, ``retrain``, the audit and the strong tier then work as for any case: retrained models
    are federated trainings without the client, class or rows that go.

    Args:
        case: Rows, task, model factory. Its own recipe gives way to the federation.
        federation: Rounds, recipes, policies.
        clients: The client of each training row: whole numbers or texts ``(N,)``; the owners
            (``group``) of the case when None.
        history: Where the updates of trainings on all rows are kept, for ``fed_eraser``.

    Returns:
        The case.

    Raises:
        InputError: If rows have no clients, or a recipe is for a client that has no rows.
    """
    train, keys = case.train, case.keys
    if train is None:
        raise InputError("federated: the case has no training rows; give Case(train=...)")
    if clients is not None:
        (given,), names = number_owners((clients,), "clients")
        owners = torch.as_tensor(np.asarray(given)).long()
        if owners.shape != (len(train),):
            raise InputError(
                f"clients: got {tuple(owners.shape)} for {len(train)} training rows; give one a row"
            )
        train = _with_owners(train, owners)
        keys = type(keys)(rows=keys.rows, owners=names)
    present = set(rows_by_client(View.all(train)))
    strange = [k for k, _ in federation.client_recipes if k not in present]
    if strange:
        raise InputError(f"client_recipes: clients {strange} have no rows; leave them out")
    how = FederatedTraining(federation=federation, task=case.task, history=history)
    return case.replace(
        train=train, keys=keys, train_model=how, recipe=federation.whole_recipe,
        name=f"{case.name} federated",
    )  # fmt: skip


def _with_owners(data: Data, owners: Tensor) -> Data:
    if not isinstance(data, TensorData | MapData):
        raise UnsupportedError("clients: such rows take no owners; give Case(group=...)")
    return replace(data, group=owners)


def training_of_problem(p: Problem) -> FederatedTraining:
    """Return how the clients of a problem trained the model.

    Without a federated case: rounds of one local epoch, as many as the recipe has epochs.
    """
    if isinstance(p.training, FederatedTraining):
        return p.training
    recipe = p.recipe.model_copy(update={"epochs": 1})
    federation = Federation(rounds=max(p.recipe.epochs, 1), recipe=recipe)
    return FederatedTraining(federation=federation, task=p.task)
