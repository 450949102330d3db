"""Federation: how clients train together, in rounds of averaging."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.core.checked import Checked
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime

BatchNormPolicy = Literal["average", "local", "frozen"]


class Federation(Checked):
    """Federated averaging (McMahan et al., AISTATS 2017, arXiv:1602.05629, algorithm 1)."""

    rounds: int = Field(ge=1)
    """Rounds of averaging."""

    recipe: Recipe
    """How each client trains in a round: ``epochs`` are its local epochs. The schedule, warm-up
    included, runs over the rounds; within a round the learning rate stays. An optimiser starts anew
    in each round."""

    client_recipes: tuple[tuple[int, Recipe], ...] = ()
    """Recipes of single clients, by their numbers; the others have ``recipe``."""

    weights: Literal["rows", "equal"] = "rows"
    """Weight of a client in the mean: its rows, or the same for all."""

    share: float = Field(1.0, gt=0, le=1)
    """Share of the clients that are drawn for a round, rounded up."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a client drops out in the middle of a round: its update is lost. A round
    that loses all updates leaves the global model as it was."""

    batch_norm: BatchNormPolicy = "average"
    """Running statistics of batch normalisation. ``average``: clients start from the global ones,
    and theirs are averaged like weights. ``local``: each client keeps its own from round to round
    (Andreux et al., 2020, arXiv:2008.07424); the global model has their mean. ``frozen``: clients
    use the global ones as they are, and none move."""

    non_finite: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of an update that is not finite: the training ends with an error that names the
    client, or the update is left out of the mean and a note names the client."""

    def recipe_of(self, client: int, round_number: int) -> Recipe:
        """Return a client's recipe in a round, counted from 0: its rate follows the schedule."""
        own = dict(self.client_recipes).get(client, self.recipe)
        if own.schedule == "constant" and not own.warmup_epochs:
            return own
        epochs = own.epochs
        rate = own.lr * own.factor(round_number * epochs, self.rounds * epochs)
        return own.model_copy(
            update={"lr": max(rate, 0.0), "schedule": "constant", "warmup_epochs": 0.0}
        )

    @property
    def whole_recipe(self) -> Recipe:
        """Return the recipe of a training of the same length on all rows in one place."""
        return self.recipe.model_copy(update={"epochs": self.recipe.epochs * self.rounds})

    def weight(self, rows: int) -> float:
        """Return the weight of a client with so many rows."""
        return float(rows) if self.weights == "rows" else 1.0

    def clients_in_round(
        self, clients: list[int], round_number: int, rt: Runtime, stream: str
    ) -> list[int]:
        """Return the clients that are drawn for a round, in the order of their numbers."""
        count = -(-len(clients) * self.share // 1)
        if count >= len(clients):
            return clients
        order = torch.randperm(len(clients), generator=rt.rng(f"{stream}/{round_number}/clients"))
        return sorted(clients[i] for i in order[: int(count)].tolist())

    def drops_out(self, client: int, round_number: int, rt: Runtime, stream: str) -> bool:
        """Return whether a client drops out in the middle of a round."""
        if not self.dropout:
            return False
        rng = rt.rng(f"{stream}/{round_number}/{client}/dropout")
        return float(torch.rand((), generator=rng)) < self.dropout


def rows_by_client(view: View) -> dict[int, View]:
    """Return the rows of each client, in the order of the clients' numbers.

    Args:
        view: Rows with owners.

    Returns:
        One view a client that has rows.

    Raises:
        InputError: If rows have no owners.
    """
    if view.data.group is None:
        raise InputError(
            "clients: the rows have no owners; give Case(group=...), one client a row, such as"
            " iid_split(len(y), 10)"
        )
    owners: Tensor = view.data.group[view.rows]
    return {k: view.pick(owners == k) for k in sorted(set(owners.tolist()))}
