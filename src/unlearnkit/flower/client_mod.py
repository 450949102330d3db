"""Client mod: what a Flower client does in rounds of unlearning.

A message has type ``train``; its ConfigRecord names the phase. Clients have no state between
messages but ``context.state``, where a client of the request keeps what it prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from torch import Tensor, nn

from unlearnkit.core.data import Data, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.federated.federation import Federation
from unlearnkit.federated.rounds import local_training
from unlearnkit.linalg.expected_fisher import mean_one
from unlearnkit.methods.federated_active_forgetting import (
    FederatedActiveForgetting,
    PreparedForgetting,
)

ARRAYS, CONFIG, METRICS, FISHER = "arrays", "config", "metrics", "fisher"
"""Names of the records of a message."""

KEPT = "unlearnkit/"
"""Prefix of the records in ``context.state``."""


@dataclass(frozen=True)
class ClientSetup:
    """A client: its rows, and how it trains."""

    client: int
    """Its number, from 0."""

    data: Data
    """Its own rows."""

    forget: Tensor
    """Which of them the request names: booleans ``(N,)``; none where there is no request."""

    fresh: Callable[[], nn.Module]
    """Makes an untrained network of the architecture."""

    task: Task
    federation: Federation

    @property
    def forget_view(self) -> View:
        """Return the rows of the request."""
        return View.all(self.data).pick(self.forget)

    @property
    def retain_view(self) -> View:
        """Return the other rows."""
        return View.all(self.data).pick(~self.forget)

    def model(self, arrays: ArrayRecord) -> nn.Module:
        """Return the network with the weights of a message."""
        net = self.fresh()
        net.load_state_dict(arrays.to_torch_state_dict())
        return net


Setup = Callable[[Context, str], ClientSetup]
"""From a context and the name of a request (empty for none) to the client."""


def train_function(setup: Setup) -> ClientAppCallable:
    """Return an ordinary train function for a ``ClientApp``: local training on retained rows.

    A train function of your own serves as well, if it leaves out the rows of
    ``config["request"]`` and answers with ``arrays`` and with ``metrics`` that hold
    ``num-examples``.

    Args:
        setup: Makes the client.

    Returns:
        A function for ``@app.train()``.
    """

    def train(message: Message, context: Context) -> Message:
        config = message.content[CONFIG]
        assert isinstance(config, ConfigRecord)
        me = setup(context, str(config.get("request", "")))
        rounds = int(config.get("rounds", me.federation.rounds))
        # Strategies of Flower count rounds from 1; those of this library give numbers from 0.
        number = int(config.get("number", int(config["server-round"]) - 1))
        epochs = config.get("epochs")
        federation = me.federation.model_copy(update={"rounds": rounds})
        work = local_training(
            me.retain_view, me.task, federation, _rt(config),
            client=me.client, number=number, stream=str(config.get("stream", "federated")),
            epochs=None if epochs is None else int(epochs),
        )  # fmt: skip
        net = me.model(_arrays(message))
        work(net)
        return _reply(message, net.state_dict(), len(me.retain_view))

    return train


def unlearning_mod(setup: Setup) -> Mod:
    """Return a mod that answers messages of unlearning and passes all others on.

    Args:
        setup: Makes the client.

    Returns:
        A mod for ``ClientApp(mods=[...])``.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        config = message.content.config_records.get(CONFIG, ConfigRecord())
        answer = PHASES.get(str(config.get("phase", "")))
        if answer is None:
            return call_next(message, context)
        return answer(setup(context, str(config["request"])), message, context)

    return mod


def _discover(me: ClientSetup, message: Message, context: Context) -> Message:
    """Say how many rows the request names, and no label."""
    found = {
        "client": me.client, "n-forget": len(me.forget_view), "n-retain": len(me.retain_view)
    }  # fmt: skip
    return Message(RecordDict({METRICS: MetricRecord(found)}), reply_to=message)


def _fisher(me: ClientSetup, message: Message, context: Context) -> Message:
    """Send the diagonal of the Fisher on retained rows, for clients that have none."""
    method, rt = _method(message), _rt(message.content[CONFIG])
    net = me.model(_arrays(message))
    found = method.fisher(net, me.retain_view, me.task, rt, client=me.client)
    return _reply(message, found, len(me.retain_view))


def _forget(me: ClientSetup, message: Message, context: Context) -> Message:
    """Train on the targets that were prepared from the model at the request."""
    config, method = message.content[CONFIG], _method(message)
    rt = _rt(config)
    net = me.model(_arrays(message))
    if KEPT + "anchor" not in context.state:
        _prepare(me, method, net, message, context, rt)
    held = {name: _state(context, name) for name in ("memory", "fisher", "anchor")}
    retain = me.retain_view if len(me.retain_view) else None
    work = method.local_forgetting(
        me.forget_view, retain,
        PreparedForgetting(held["memory"]["memory"], held["fisher"], held["anchor"]),
        me.task, me.federation, rt, client=me.client, number=int(config["number"]),
    )  # fmt: skip
    work(net)
    if config["last"]:
        for name in held:
            del context.state[KEPT + name]
    return _reply(message, net.state_dict(), len(me.data))


def _prepare(
    me: ClientSetup,
    method: FederatedActiveForgetting,
    net: nn.Module,
    message: Message,
    context: Context,
    rt: Runtime,
) -> None:
    fisher: Mapping[str, Tensor] = {}
    if method.strength and len(me.retain_view):
        fisher = mean_one(method.fisher(net, me.retain_view, me.task, rt, client=me.client))
    elif method.strength:
        others = message.content[FISHER]
        assert isinstance(others, ArrayRecord)
        fisher = mean_one(dict(others.to_torch_state_dict()))
    anchor = {n: w.detach().clone() for n, w in net.named_parameters()}
    memory = method.memory(net, me.forget_view, me.task, rt, client=me.client)
    parts = {"memory": {"memory": memory}, "fisher": fisher, "anchor": anchor}
    for name, tensors in parts.items():
        context.state[KEPT + name] = ArrayRecord({n: t.cpu() for n, t in tensors.items()})


PHASES: dict[str, Callable[[ClientSetup, Message, Context], Message]] = {
    "discover": _discover, "fisher": _fisher, "forget": _forget
}  # fmt: skip
"""What the mod answers."""


def _rt(config: ConfigRecord) -> Runtime:
    return Runtime(seed=int(config.get("seed", 0)))


def _method(message: Message) -> FederatedActiveForgetting:
    text = str(message.content[CONFIG]["method"])
    return FederatedActiveForgetting.model_validate_json(text)


def _arrays(message: Message) -> ArrayRecord:
    return message.content[ARRAYS]


def _state(context: Context, name: str) -> dict[str, Tensor]:
    record = context.state[KEPT + name]
    return {n: torch.as_tensor(t) for n, t in record.to_torch_state_dict().items()}


def _reply(message: Message, tensors: Mapping[str, Tensor], rows: int) -> Message:
    arrays = ArrayRecord({n: t.detach().cpu() for n, t in tensors.items()})
    metrics = MetricRecord({"num-examples": rows})
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)
