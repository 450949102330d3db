"""Replay memory: a uniform sample of the stream, replayed, and deletable row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from unlearnkit.online.online_learner import (
    Array,
    Guarantee,
    HeadShape,
    OnlineLearner,
    OnlineSample,
    State,
    add_outer,
    first_layer,
    softmax,
)

MASK = (1 << 64) - 1
EVERY = MASK
"""Threshold at which every sample is taken in."""


class ReplayMemory(OnlineLearner):
    """Steps on each sample and on some of the memory; forgetting trains anew on what it holds.

    Each sample has a pseudo-random priority that its number alone decides. The memory holds the
    samples whose priority is below a threshold; where it is full, the sample of highest priority
    goes, and the threshold falls to that. So the memory is a uniform sample of the stream, and
    without a deleted sample it is the one that the stream without it leaves at the same threshold.
    """

    guarantee: ClassVar[Guarantee] = "independent"
    how: ClassVar[str] = (
        "deleted from the memory, and the layer trained anew on the samples that the memory holds"
    )
    class_guarantee: ClassVar[Guarantee] = "independent"
    class_how: ClassVar[str] = (
        "its samples are deleted from the memory, and the layer is trained anew on the others"
    )
    keeps_samples: ClassVar[bool] = True
    by_class: ClassVar[tuple[str, ...]] = ("layer", "first")

    rows: int = Field(100, ge=1)
    """Samples in the memory, at most."""

    replays: int = Field(4, ge=0)
    """Samples of the memory that are replayed with each new one."""

    passes: int = Field(10, ge=1)
    """Passes over the memory when the layer is trained anew."""

    lr: float = Field(0.05, gt=0, allow_inf_nan=False)
    """Learning rate of a step, for features of mean square norm 1."""

    seed: int = Field(0, ge=0)
    """Of the priorities and of what is replayed."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the layer, the empty memory, and the first layer if there is one."""
        state = {
            "layer": first_layer(shape, first, "float32"),
            "memory": np.zeros((self.rows, shape.inputs), dtype=np.float32),
            "classes": np.zeros(self.rows, dtype=np.int16),
            "numbers": np.zeros(self.rows, dtype=np.int64),
            "size": np.zeros(1, dtype=np.int64),
            "threshold": np.full(1, EVERY, dtype=np.uint64),
        }
        if first is not None:
            state["first"] = state["layer"].copy()
        return state

    def learn(self, state: State, sample: OnlineSample, classes: int) -> None:
        """Take the sample in if its priority is low enough; step on it and on replayed ones."""
        self._admit(state, sample)
        layer, size = state["layer"][:classes], int(state["size"][0])
        self._step(layer, sample.x, sample.row)
        if size:
            for i in range(self.replays):
                at = mix(self.seed, sample.number, i + 1) % size
                self._step(layer, state["memory"][at], int(state["classes"][at]))

    def _step(self, layer: Array, x: Array, row: int) -> None:
        e = softmax(layer @ x)
        e[row] -= 1
        add_outer(layer, -self.lr, e, x)

    def _admit(self, state: State, sample: OnlineSample) -> None:
        priority = mix(self.seed, sample.number)
        if priority >= int(state["threshold"][0]):
            return
        size = int(state["size"][0])
        if size < self.rows:
            at = size
            state["size"][0] = size + 1
        else:
            ranks = [mix(self.seed, int(n)) for n in state["numbers"]]
            at = int(np.argmax(np.array(ranks, dtype=np.uint64)))
            state["threshold"][0] = max(ranks[at], priority)
            if ranks[at] < priority:
                return
        state["memory"][at] = sample.x
        state["classes"][at], state["numbers"][at] = sample.row, sample.number

    def forget(self, state: State, samples: Sequence[OnlineSample], classes: int) -> None:
        """Delete samples from the memory, and train anew."""
        self._delete(state, np.isin(state["numbers"], [s.number for s in samples]))
        self.retrain(state, classes)

    def remove_class(self, state: State, row: int, classes: int) -> None:
        """Delete a class and its samples, and train anew."""
        self._delete(state, state["classes"] == row)
        super().remove_class(state, row, classes)
        state["classes"] -= state["classes"] > row
        self.retrain(state, classes - 1)

    @staticmethod
    def _delete(state: State, gone: Array) -> None:
        size = int(state["size"][0])
        gone[size:] = True
        stay = int((~gone).sum())
        for name in ("memory", "classes", "numbers"):
            a = state[name]
            for at, i in enumerate(np.flatnonzero(~gone)):
                a[at] = a[i]
            a[stay:] = 0
        state["size"][0] = stay

    def retrain(self, state: State, classes: int) -> None:
        """Train the layer from its start on the memory alone, in the order of the numbers."""
        layer, size = state["layer"], int(state["size"][0])
        layer[:] = state.get("first", 0)
        for i in range(self.passes):
            order = np.argsort([mix(self.seed, int(n), i) for n in state["numbers"][:size]])
            for at in order:
                self._step(layer[:classes], state["memory"][at], int(state["classes"][at]))

    def work_bytes(self, shape: HeadShape) -> int:
        """Return the bytes of temporary arrays; a full memory compares its priorities."""
        return 24 * self.rows + super().work_bytes(shape)


def mix(seed: int, number: int, draw: int = 0) -> int:
    """Return 64 pseudo-random bits of a sample: SplitMix64 (Steele et al., OOPSLA 2014)."""
    z = (number + 1) * 0x9E3779B97F4A7C15 + (draw + 1) * 0xD1B54A32D192ED03 + seed
    z &= MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)
