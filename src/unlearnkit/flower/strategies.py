"""Flower strategies: the rounds of federated unlearning, as messages to clients.

With the averaging of the in-process core a run has the bits of the in-process methods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import WARNING, getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from unlearnkit.core.digest import digest
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated.aggregation import (
    non_finite_tensor,
    weighted_mean,
)
from unlearnkit.federated.federation import Federation
from unlearnkit.federated.rounds import ClientUpdates
from unlearnkit.federated.update_history import UpdateHistory, complete_rounds, training_name
from unlearnkit.flower.client_mod import ARRAYS, CONFIG, FISHER, METRICS
from unlearnkit.methods.fed_eraser import FedEraser, calibrated_state
from unlearnkit.methods.federated_active_forgetting import FederatedActiveForgetting

LOG = getLogger("flwr")
State = dict[str, Tensor]


@dataclass(frozen=True)
class FlowerNode:
    """A node, as it answered."""

    node: int
    """Flower's id."""

    client: int
    """Its number as a client."""

    forget: int
    """Rows of the request."""

    retain: int
    """Other rows."""


@dataclass
class RoundPlan:
    """What is sent in a round, and what becomes of the answers."""

    number: int
    """Of the round in its phase, from 0."""

    config: dict[int, dict[str, Any]] = field(default_factory=dict)
    """For each client that takes part."""

    weights: dict[int, float] = field(default_factory=dict)
    """In the mean, by client."""

    extra: dict[str, ArrayRecord] = field(default_factory=dict)
    """More records for clients that forget."""


class UnlearningRounds(FedAvg):  # type: ignore[misc]  # Flower has no types of its own here
    """What the strategies share: who has rows of the request, messages, and the mean.

    Args:
        request: Name of the request, which clients resolve to their rows; empty for none.
        federation: Rounds, recipes, policies.
        seed: Of all draws on clients.
        timeout: Seconds to wait for the answers of a phase before training.
        settings: Of ``FedAvg``, such as ``min_available_nodes``.
    """

    def __init__(
        self,
        request: str,
        federation: Federation,
        *,
        seed: int = 0,
        timeout: float = 600.0,
        **settings: Any,
    ) -> None:
        super().__init__(**{"fraction_evaluate": 0.0, **settings})
        if federation.batch_norm == "local":
            raise InputError(
                "flower: batch_norm='local' needs clients that keep statistics; use 'average' or"
                " 'frozen'"
            )
        self.request, self.federation, self.seed, self.timeout = request, federation, seed, timeout
        self._nodes: dict[int, FlowerNode] = {}
        self._sent: State = {}
        self._plan = RoundPlan(0)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of a round, counted from 1."""
        if not self._nodes:
            self._nodes = self.discover(grid)
        self._sent = dict(arrays.to_torch_state_dict())
        self._plan = self.plan(server_round - 1, arrays, grid)
        return [
            self._message(
                self._nodes[k].node,
                {ARRAYS: arrays, **(self._plan.extra if own["phase"] == "forget" else {})},
                {**dict(config), **own, "server-round": server_round},
            )
            for k, own in self._plan.config.items()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of the answers; None if there is none."""
        states = self._states(replies)
        new = self.combine(states)
        return (None if new is None else ArrayRecord(new)), None

    def plan(self, number: int, arrays: ArrayRecord, grid: Grid) -> RoundPlan:
        """Return what is sent in a round, counted from 0."""
        return self.training_round(number, self.federation.rounds)

    def combine(self, states: dict[int, State]) -> State | None:
        """Return the new global state, from those of clients."""
        if not states:
            LOG.log(WARNING, "no update arrived: the global model stays")
            return None
        return weighted_mean(states, {k: self._plan.weights[k] for k in states})

    def training_round(self, number: int, rounds: int) -> RoundPlan:
        """Return an ordinary round on retained rows, in a training of so many rounds."""
        clients = sorted(k for k, n in self._nodes.items() if n.retain)
        chosen = self.federation.clients_in_round(
            clients, number, Runtime(seed=self.seed), "federated"
        )
        common = {"phase": "train", "number": number, "rounds": rounds, **self._common()}
        weights = {k: self.federation.weight(self._nodes[k].retain) for k in chosen}
        return RoundPlan(number, {k: dict(common) for k in chosen}, weights)

    def discover(self, grid: Grid) -> dict[int, FlowerNode]:
        """Return the clients, by number, as they answer; no label is sent."""
        while len(ids := sorted(grid.get_node_ids())) < self.min_available_nodes:
            time.sleep(0.1)
        config = {"phase": "discover", **self._common()}
        found: dict[int, FlowerNode] = {}
        for reply in self._ask(grid, [self._message(i, {}, config) for i in ids]):
            facts = reply.content[METRICS]
            client = int(facts["client"])
            if client in found:
                raise InputError(
                    f"flower: two nodes say that they are client {client}; number them"
                )
            found[client] = FlowerNode(
                reply.metadata.src_node_id, client, int(facts["n-forget"]), int(facts["n-retain"])
            )
        if not found:
            raise InputError(
                "flower: no client answered; add unlearning_mod to the ClientApp, and see its log"
            )
        if self.request and not any(n.forget for n in found.values()):
            raise InputError(f"flower: no client has rows of request {self.request!r}; check it")
        if not any(n.retain for n in found.values()):
            raise InputError("flower: the request names all rows of all clients; keep some")
        return found

    def _common(self) -> dict[str, Any]:
        return {"request": self.request, "seed": self.seed}

    def _message(
        self, node: int, records: Mapping[str, ArrayRecord], config: Mapping[str, Any]
    ) -> Message:
        content = RecordDict({**records, CONFIG: ConfigRecord(dict(config))})
        return Message(content=content, message_type=MessageType.TRAIN, dst_node_id=node)

    def _ask(self, grid: Grid, messages: list[Message]) -> list[Message]:
        replies = list(grid.send_and_receive(messages=messages, timeout=self.timeout))
        valid: list[Message]
        valid, _ = self._check_and_log_replies(replies, is_train=True, validate=False)
        return valid

    def _states(self, replies: Iterable[Message]) -> dict[int, State]:
        """Return what arrived, by client, in the order of their numbers; finite states only."""
        names = {n.node: k for k, n in self._nodes.items()}
        found: dict[int, State] = {}
        # Flower's own check would stop at the first odd answer without naming the client.
        valid, _ = self._check_and_log_replies(list(replies), is_train=True, validate=False)
        for reply in valid:
            client = names[reply.metadata.src_node_id]
            if ARRAYS not in reply.content:
                raise InputError(
                    f"flower: client {client} answered without {ARRAYS!r}; let its train function"
                    " reply with the weights"
                )
            state = dict(reply.content[ARRAYS].to_torch_state_dict())
            if odd := non_finite_tensor(state):
                if self.federation.non_finite == "refuse":
                    raise DivergedError(
                        f"federated: {odd} of client {client} in round {self._plan.number} is not"
                        " finite; use a smaller learning rate, or non_finite='leave_out'"
                    )
                LOG.log(WARNING, "client %s left out: update not finite", client)
                continue
            found[client] = state
        for lost in sorted(set(self._plan.config) - set(found)):
            LOG.log(WARNING, "client %s is not in the mean of this round", lost)
        return dict(sorted(found.items()))


class FedAFStrategy(UnlearningRounds):
    """Federated active forgetting: clients of the request forget, then rounds repair.

    Start it from the trained model, with ``num_rounds=strategy.rounds``. With no unlearning rounds
    and no request it is ``FedAvg``, call by call.

    Args:
        request: Name of the request.
        federation: How the model was trained.
        method: Settings of the method.
        seed: Of all draws on clients.
        settings: Of ``UnlearningRounds``.
    """

    def __init__(
        self,
        request: str,
        federation: Federation,
        method: FederatedActiveForgetting | None = None,
        *,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(request, federation, seed=seed, **settings)
        self.method = method or FederatedActiveForgetting()
        self._others: dict[str, ArrayRecord] = {}
        self.repair = math.ceil(self.method.repair * federation.rounds - 1e-9)

    @property
    def rounds(self) -> int:
        """Return the rounds of a run: unlearning and repair."""
        return self.method.rounds + self.repair

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of a round; those of ``FedAvg`` where nothing is forgotten."""
        if not self.method.rounds:
            return list(FedAvg.configure_train(self, server_round, arrays, config, grid))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of the answers; that of ``FedAvg`` where nothing is forgotten."""
        if not self.method.rounds:
            found: tuple[ArrayRecord | None, MetricRecord | None] = FedAvg.aggregate_train(
                self, server_round, replies
            )
            return found
        return super().aggregate_train(server_round, replies)

    def plan(self, number: int, arrays: ArrayRecord, grid: Grid) -> RoundPlan:
        """Return an unlearning round, or one of repair."""
        if number >= self.method.rounds:
            return self.training_round(number - self.method.rounds, self.repair)
        sizes = {k: n.forget + n.retain for k, n in self._nodes.items()}
        floor = self.method.least_weight * sum(sizes.values())
        plan = RoundPlan(number)
        for k in sorted(sizes):
            weight = self.federation.weight(sizes[k])
            common = {"number": number, **self._common()}
            if self._nodes[k].forget:
                plan.config[k] = {
                    "phase": "forget",
                    "method": self.method.model_dump_json(),
                    "last": number == self.method.rounds - 1,
                    **common,
                }
                plan.weights[k] = max(weight, floor)
            else:
                plan.config[k] = {
                    "phase": "train",
                    "rounds": self.federation.rounds,
                    "stream": self.method.id,
                    **common,
                }
                plan.weights[k] = weight
        if number == 0 and self.method.strength:
            self._others = self._fishers(arrays, grid)
        plan.extra = self._others
        return plan

    def _fishers(self, arrays: ArrayRecord, grid: Grid) -> dict[str, ArrayRecord]:
        """Return the mean Fisher of the others, where a client of the request keeps no rows."""
        if all(n.retain for n in self._nodes.values() if n.forget):
            return {}
        config = {"phase": "fisher", "method": self.method.model_dump_json(), **self._common()}
        holders = {n.node: k for k, n in self._nodes.items() if n.retain}
        replies = self._ask(grid, [self._message(i, {ARRAYS: arrays}, config) for i in holders])
        found = {
            holders[r.metadata.src_node_id]: dict(r.content[ARRAYS].to_torch_state_dict())
            for r in replies
        }
        order = dict(sorted(found.items()))
        mean = weighted_mean(order, {k: float(self._nodes[k].retain) for k in order})
        return {FISHER: ArrayRecord(mean)}


class RetrainStrategy(UnlearningRounds):
    """Federated training from scratch without the rows of the request.

    Start it from an untrained model, with ``num_rounds=federation.rounds``. Clients that have no
    other rows get no message.
    """


class FedEraserStrategy(UnlearningRounds):
    """FedEraser: keep updates in training, and replay them without the request.

    Without a request it trains, and keeps what clients send. With one it replays: start it from
    ``strategy.initial_arrays``, with ``num_rounds=len(strategy.stored)``.

    Args:
        request: Name of the request; empty to train.
        federation: Rounds, recipes, policies.
        history: Where updates are kept.
        model: With a request, the trained model; without one, any of its architecture.
        method: Settings of the method.
        seed: Of all draws on clients.
        settings: Of ``UnlearningRounds``.

    Raises:
        InputError: If the history has no training that led to the model.
    """

    def __init__(
        self,
        request: str,
        federation: Federation,
        history: UpdateHistory,
        model: nn.Module,
        method: FedEraser | None = None,
        *,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(request, federation, seed=seed, **settings)
        self.history, self.method = history, method or FedEraser()
        self.model = model
        self.stored: list[ClientUpdates] = []
        self._training = ""
        self._names = [n for n, _ in model.named_parameters()]
        if request:
            training = history.find(model)
            if training is None:
                raise InputError(
                    "fed_eraser: the history has no training that led to this model; give the"
                    " history of the rounds that trained it"
                )
            self.stored = list(complete_rounds(history, training, model, federation.rounds))

    @property
    def initial_arrays(self) -> ArrayRecord:
        """Return the arrays to start a replay from: those before the first round of training."""
        return ArrayRecord(self.stored[0].start)

    def plan(self, number: int, arrays: ArrayRecord, grid: Grid) -> RoundPlan:
        """Return a round of training, or one of calibration."""
        if not self.request:
            return self.training_round(number, self.federation.rounds)
        sent = self.stored[number]
        here = [k for k in sent.weights if k in self._nodes and self._nodes[k].retain]
        plan = RoundPlan(sent.round_number)
        for k in here:
            plan.weights[k] = self.federation.weight(self._nodes[k].retain)
            if not self._as_stored(sent, k):
                epochs = self.federation.recipe_of(k, sent.round_number).epochs
                plan.config[k] = {
                    "phase": "train",
                    "number": sent.round_number,
                    "rounds": self.federation.rounds,
                    "epochs": max(1, math.ceil(self.method.calibration * epochs - 1e-9)),
                    **self._common(),
                }
        return plan

    def combine(self, states: dict[int, State]) -> State | None:
        """Return the mean: of what arrived in training, of calibrated updates in a replay."""
        if not self.request:
            return self._keep(states)
        sent = next(s for s in self.stored if s.round_number == self._plan.number)
        new: dict[int, State] = {}
        for k in self._plan.weights:
            if self._as_stored(sent, k):
                new[k] = sent.states[k]
            elif k in states:
                new[k] = calibrated_state(
                    sent, k, self._sent, states[k], self._names, self.method.match
                )
        return super().combine(new)

    def _as_stored(self, sent: ClientUpdates, client: int) -> bool:
        first = sent.round_number == 0 and client in sent.states
        return first and not self._nodes[client].forget

    def _keep(self, states: dict[int, State]) -> State | None:
        number = self._plan.number
        if number == 0:
            rows = digest({str(k): n.retain for k, n in sorted(self._nodes.items())})
            self._training = training_name(self._sent, f"{rows} {self.federation}", self.seed)
            self.history.begin(self._training)
        used = {k: self._plan.weights[k] for k in states}
        lost = tuple(sorted(set(self._plan.config) - set(states)))
        self.history.add(
            self._training, ClientUpdates(number, dict(self._sent), dict(states), used, lost)
        )
        new = super().combine(states)
        if number == self.federation.rounds - 1:
            self.model.load_state_dict(self._sent if new is None else new)
            self.history.end(self._training, self.model)
        return new
