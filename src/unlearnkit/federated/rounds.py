"""Rounds: clients train from the global model, and their models are averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import View
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.federated.aggregation import non_finite_tensor, weighted_mean
from unlearnkit.federated.federation import Federation
from unlearnkit.train.loop import Norm, fit

LocalTraining = Callable[[nn.Module], None]
"""Trains a client's copy of the global model, in place."""


@dataclass(frozen=True)
class ClientUpdates:
    """What clients sent in one round."""

    round_number: int
    """From 0."""

    start: dict[str, Tensor]
    """The global state at the start of the round, by name."""

    states: dict[int, dict[str, Tensor]]
    """Each client's state at its end."""

    weights: dict[int, float]
    """Each client's weight in the mean."""

    lost: tuple[int, ...] = ()
    """Clients that dropped out, or whose update was left out because it was not finite."""


@dataclass
class LocalStatistics:
    """Running statistics that clients keep for themselves, by client."""

    by_client: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def run_round(
    model: nn.Module,
    local: Mapping[int, LocalTraining],
    weights: Mapping[int, float],
    federation: Federation,
    rt: Runtime,
    *,
    number: int,
    stream: str = "federated",
    statistics: LocalStatistics | None = None,
) -> ClientUpdates:
    """Run one round: each client trains from the global model; the mean becomes the global model.

    ``w <- sum_k weight_k w_k / sum_k weight_k`` over the clients whose update arrives.

    Args:
        model: The global model; changed in place.
        local: What each client does to its copy, by client, in the order in which they run.
        weights: Of each client.
        federation: Policies.
        rt: Decides who drops out; takes notes.
        number: Of the round, from 0.
        stream: First part of the names of random streams.
        statistics: Running statistics that clients keep, for the policy ``local``; changed.

    Returns:
        What the clients sent.

    Raises:
        DivergedError: If an update is not finite and the federation refuses those.
    """
    start = state_of(model)
    states: dict[int, dict[str, Tensor]] = {}
    lost: list[int] = []
    for client, train in local.items():
        held = {} if statistics is None else statistics.by_client.get(client, {})
        load_state(model, {**start, **held})
        train(model)
        if federation.drops_out(client, number, rt, stream):
            lost.append(client)
            continue
        state = state_of(model)
        if odd := non_finite_tensor(state):
            if federation.non_finite == "refuse":
                raise DivergedError(
                    f"federated: {odd} of client {client} in round {number} is not finite;"
                    " use a smaller learning rate, or non_finite='leave_out'"
                )
            rt.note(f"federated: client {client} left out of round {number}: update not finite")
            lost.append(client)
            continue
        states[client] = state
        if statistics is not None and federation.batch_norm == "local":
            names = running_statistics(model)
            statistics.by_client[client] = {n: state[n] for n in names}
    load_state(model, weighted_mean(states, weights) if states else start)
    if not states:
        rt.note(f"federated: no update arrived in round {number}: the global model stays")
    used = {k: float(weights[k]) for k in states}
    return ClientUpdates(number, start, states, used, tuple(lost))


def train_in_rounds(
    model: nn.Module,
    clients: Mapping[int, View],
    task: Task,
    federation: Federation,
    rt: Runtime,
    *,
    first: int = 0,
    rounds: int | None = None,
    stream: str = "federated",
    after_round: Callable[[ClientUpdates], bool | None] | None = None,
) -> None:
    """Train a model by federated averaging.

    Every draw is from a stream with the number of its round, so that a training that goes on from
    the global model of round ``first`` (``batch_norm`` other than ``local``) has the same bits as
    one that was never interrupted.

    Args:
        model: The global model; changed in place.
        clients: The rows of each client.
        task: Outputs and losses.
        federation: Rounds, recipes, policies.
        rt: Device, precision, seed, cost.
        first: The round to begin with.
        rounds: The round to end before; the federation's last when None.
        stream: First part of the names of random streams.
        after_round: Called with what the clients sent; the training ends when it returns True.

    Raises:
        InputError: If there is no client.
    """
    if not clients:
        raise InputError("federated: no client has rows; keep at least one")
    last = federation.rounds if rounds is None else rounds
    statistics = LocalStatistics() if federation.batch_norm == "local" else None
    for number in range(first, last):
        chosen = federation.clients_in_round(sorted(clients), number, rt, stream)
        local = {
            k: local_training(clients[k], task, federation, rt, client=k, number=number)
            for k in chosen
        }
        weights = {k: federation.weight(len(clients[k])) for k in chosen}
        sent = run_round(
            model, local, weights, federation, rt,
            number=number, stream=stream, statistics=statistics,
        )  # fmt: skip
        rt.reporter.progress(stream, number + 1, last)
        if after_round is not None and after_round(sent):
            break


def local_training(
    view: View,
    task: Task,
    federation: Federation,
    rt: Runtime,
    *,
    client: int,
    number: int,
    stream: str = "federated",
    epochs: int | None = None,
) -> LocalTraining:
    """Return the ordinary training of a client in a round, counted from 0.

    Args:
        view: Its rows.
        task: Outputs and losses.
        federation: Gives the client's recipe.
        rt: Device, precision, seed, cost.
        client: Its number.
        number: Of the round.
        stream: First part of the name of the random stream.
        epochs: Local epochs; the recipe's when None.

    Returns:
        The function that trains.
    """
    recipe = federation.recipe_of(client, number)
    if epochs is not None:
        recipe = recipe.model_copy(update={"epochs": epochs})

    def train(model: nn.Module) -> None:
        fit(
            model, view, task, recipe, rt,
            stream=f"{stream}/{number}/{client}", norm=norm_of(federation, view),
        )  # fmt: skip

    return train


def norm_of(federation: Federation, view: View) -> Norm:
    """Return whether running statistics move: never for one row, which has no variance."""
    return "frozen" if federation.batch_norm == "frozen" or len(view) < 2 else "train"


def running_statistics(model: nn.Module) -> list[str]:
    """Return the names of the buffers of batch normalisation."""
    return [
        f"{layer}.{name}" if layer else name
        for layer, m in model.named_modules()
        if isinstance(m, _BatchNorm)
        for name, _ in m.named_buffers(recurse=False)
    ]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state of a model."""
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a state into a model, in place."""
    for name, t in model.state_dict().items():
        t.copy_(state[name])
