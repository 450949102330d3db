"""Update history: what clients sent in each round, kept in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.federated.aggregation import State, check_architectures
from unlearnkit.federated.rounds import ClientUpdates

_FORMAT = 1


class UpdateHistory(Protocol):
    """Keeps rounds by training, and finds a training by the model that it led to."""

    every: int
    """Every how many rounds updates are kept."""

    def begin(self, training: str) -> None:
        """Start to keep the rounds of a training; those of an earlier one of this name go."""
        ...

    def add(self, training: str, sent: ClientUpdates) -> None:
        """Keep a round, if it is one of those that are kept."""
        ...

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        ...

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        ...

    def rounds(self, training: str) -> Iterator[ClientUpdates]:
        """Yield the rounds that were kept, in order."""
        ...


class MemoryHistory:
    """A history in memory: rounds x clients x the size of the model."""

    def __init__(self, *, every: int = 2) -> None:
        """Keep every so many rounds, from the first."""
        self.every = _checked(every)
        self._rounds: dict[str, list[ClientUpdates]] = {}
        self._models: dict[str, str] = {}

    def begin(self, training: str) -> None:
        """Start to keep the rounds of a training; those of an earlier one of this name go."""
        self._rounds[training] = []

    def add(self, training: str, sent: ClientUpdates) -> None:
        """Keep a round, if it is one of those that are kept."""
        if sent.round_number % self.every == 0:
            self._rounds[training].append(sent)

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        self._models[_name(model)] = training

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        return self._models.get(_name(model))

    def rounds(self, training: str) -> Iterator[ClientUpdates]:
        """Yield the rounds that were kept, in order."""
        yield from self._rounds[training]


class DiskHistory:
    """A history on disk: a folder a training, a safetensors file a round."""

    def __init__(self, folder: Path | str, *, every: int = 2) -> None:
        """Keep every so many rounds, from the first, under a folder."""
        self.every, self._folder = _checked(every), Path(folder)

    def begin(self, training: str) -> None:
        """Start to keep the rounds of a training; those of an earlier one of this name go."""
        place = self._folder / training
        place.mkdir(parents=True, exist_ok=True)
        for file in [*place.glob("round-*.safetensors"), place / "model.json"]:
            file.unlink(missing_ok=True)

    def add(self, training: str, sent: ClientUpdates) -> None:
        """Keep a round, if it is one of those that are kept."""
        if sent.round_number % self.every:
            return
        tensors = {f"start/{n}": t.cpu().contiguous() for n, t in sent.start.items()}
        for k, state in sent.states.items():
            tensors |= {f"{k}/{n}": t.cpu().contiguous() for n, t in state.items()}
        facts = {
            "format": _FORMAT,
            "round": sent.round_number,
            "weights": sent.weights,
            "lost": sent.lost,
        }
        file = self._folder / training / f"round-{sent.round_number:06d}.safetensors"
        save_file(tensors, file, metadata={"facts": json.dumps(facts)})

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        place = self._folder / training / "model.json"
        place.write_text(json.dumps({"model": _name(model)}), "utf-8")

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        for place in sorted(self._folder.glob("*/model.json")):
            if json.loads(place.read_text("utf-8"))["model"] == _name(model):
                return place.parent.name
        return None

    def rounds(self, training: str) -> Iterator[ClientUpdates]:
        """Yield the rounds that were kept, in order."""
        for file in sorted((self._folder / training).glob("round-*.safetensors")):
            yield _read(file)


def complete_rounds(
    history: UpdateHistory, training: str, model: nn.Module, rounds: int
) -> Iterator[ClientUpdates]:
    """Yield the stored rounds of a training, checked: none is missing, all fit the model.

    Args:
        history: Has the training.
        training: Its name.
        model: The model that it led to.
        rounds: Of the training.

    Yields:
        Every round that a history with this ``every`` keeps.

    Raises:
        InputError: If a round is missing or one too many, or is of another architecture.
    """
    expected, state = iter(range(0, rounds, history.every)), model.state_dict()
    for sent in history.rounds(training):
        number = next(expected, None)
        if sent.round_number != number:
            missing = f"no round {number}" if number is not None else f"a round {sent.round_number}"
            raise InputError(
                f"history: it has {missing}, where every {history.every} of {rounds} rounds were"
                " kept; give the whole history of this training, with the federation of then"
            )
        check_architectures({-1: state, **sent.states})
        yield sent
    if (number := next(expected, None)) is not None:
        raise InputError(
            f"history: it has no round {number}, where every {history.every} of {rounds} rounds"
            " were kept; give the whole history of this training, with the federation of then"
        )


def _read(file: Path) -> ClientUpdates:
    with safe_open(file, framework="pt") as held:
        facts = json.loads(held.metadata()["facts"])
        start: dict[str, Tensor] = {}
        states: dict[int, dict[str, Tensor]] = {int(k): {} for k in facts["weights"]}
        for key in held.keys():  # noqa: SIM118  # not a mapping
            who, _, name = key.partition("/")
            (start if who == "start" else states[int(who)])[name] = held.get_tensor(key)
    weights = {int(k): float(w) for k, w in facts["weights"].items()}
    return ClientUpdates(facts["round"], start, states, weights, tuple(facts["lost"]))


def _checked(every: int) -> int:
    if every < 1:
        raise InputError(f"history: every must be at least 1 round, got {every!r}; 2 is usual")
    return every


def _name(model: nn.Module) -> str:
    return model_digest(model)


def training_name(start: State, rows: str, seed: int) -> str:
    """Return the name of a training: its untrained model, its rows and its seed, by content."""
    weights = {n: tensor_digest(t) for n, t in start.items()}
    return digest({"start": weights, "rows": rows, "seed": seed})[:32]
