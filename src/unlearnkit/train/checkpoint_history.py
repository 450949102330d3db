"""Checkpoint history: the states of a training, kept in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError

_UNREAD = "unread rows"
"""Name of the tensor of rows in a file; no tensor of a model has a space in its name."""


@dataclass(frozen=True)
class Checkpoint:
    """A state of a training."""

    epoch: int
    """Epochs before it: 0 is the untrained model."""

    state: Mapping[str, Tensor]
    """Parameters and buffers by name, on the CPU."""

    unread: Tensor
    """Positions of the rows that no step before it had read ``(k,)``."""


class CheckpointHistory(Protocol):
    """Keeps the checkpoints of trainings, and finds a training by the model that it led to."""

    every: int
    """Every how many epochs a state is kept, the untrained one first."""

    def add(self, training: str, point: Checkpoint) -> None:
        """Keep a state; the untrained one starts the training anew."""
        ...

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        ...

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        ...

    def points(self, training: str) -> Iterator[Checkpoint]:
        """Yield the states that were kept, the untrained one first."""
        ...


class MemoryCheckpoints:
    """A history in memory: the size of the model, times the states that are kept."""

    def __init__(self, *, every: int = 1) -> None:
        """Keep a state every so many epochs, from the untrained one."""
        self.every = _checked(every)
        self._points: dict[str, list[Checkpoint]] = {}
        self._models: dict[str, str] = {}

    def add(self, training: str, point: Checkpoint) -> None:
        """Keep a state; the untrained one starts the training anew."""
        if point.epoch == 0:
            self._points[training] = []
        self._points[training].append(point)

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        self._models[model_digest(model)] = training

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        return self._models.get(model_digest(model))

    def points(self, training: str) -> Iterator[Checkpoint]:
        """Yield the states that were kept, the untrained one first."""
        yield from self._points[training]


class DiskCheckpoints:
    """A history on disk: a folder a training, a safetensors file a state."""

    def __init__(self, folder: Path | str, *, every: int = 1) -> None:
        """Keep a state every so many epochs, from the untrained one, under a folder."""
        self.every, self._folder = _checked(every), Path(folder)

    def add(self, training: str, point: Checkpoint) -> None:
        """Keep a state; the untrained one starts the training anew."""
        place = self._folder / training
        if point.epoch == 0:
            place.mkdir(parents=True, exist_ok=True)
            for file in [*place.glob("epoch-*.safetensors"), place / "model.json"]:
                file.unlink(missing_ok=True)
        tensors = {n: t.contiguous() for n, t in point.state.items()} | {_UNREAD: point.unread}
        save_file(tensors, place / f"epoch-{point.epoch:06d}.safetensors")

    def end(self, training: str, model: nn.Module) -> None:
        """Say which model the training led to."""
        place = self._folder / training / "model.json"
        place.write_text(json.dumps({"model": model_digest(model)}), "utf-8")

    def find(self, model: nn.Module) -> str | None:
        """Return the training that led to this model, bit for bit; None if there is none."""
        own = model_digest(model)
        for place in sorted(self._folder.glob("*/model.json")):
            if json.loads(place.read_text("utf-8"))["model"] == own:
                return place.parent.name
        return None

    def points(self, training: str) -> Iterator[Checkpoint]:
        """Yield the states that were kept, the untrained one first."""
        for file in sorted((self._folder / training).glob("epoch-*.safetensors")):
            with safe_open(file, framework="pt") as held:
                state = {n: held.get_tensor(n) for n in held.keys()}  # noqa: SIM118  # no mapping
            unread = state.pop(_UNREAD)
            yield Checkpoint(int(file.stem.removeprefix("epoch-")), state, unread)


def training_id(model: nn.Module, rows: str, seed: int) -> str:
    """Return the name of a training: its untrained model, its rows and its seed, by content."""
    weights = {n: tensor_digest(t) for n, t in model.state_dict().items()}
    return digest({"start": weights, "rows": rows, "seed": seed})[:32]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state on the CPU; tied tensors are copied each."""
    return {n: t.detach().cpu().clone() for n, t in model.state_dict().items()}


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model the tensors of a state.

    Raises:
        InputError: If it is of another architecture.
    """
    own = model.state_dict()
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
        raise InputError(
            "checkpoints: the kept states are of another architecture than the model; give the"
            " history of the training that led to it"
        )
    for name, t in own.items():
        t.copy_(state[name])


def _checked(every: int) -> int:
    if every < 1:
        raise InputError(f"checkpoints: every must be at least 1 epoch, got {every!r}; 1 is usual")
    return every
