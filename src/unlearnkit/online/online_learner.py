"""Online learner: how a last layer learns one sample, and how it forgets one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from unlearnkit.core.checked import Checked

Array = NDArray[Any]
State = dict[str, Array]
"""Everything that a learner keeps between samples: its bytes are the head's memory."""

Guarantee = Literal["exact", "independent", "approximate"]
"""``exact``: the layer equals that of the stream without the samples, up to rounding.
``independent``: the layer was computed anew from data without the samples, but is not the one that
the stream would have led to. ``approximate``: neither."""

Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a head."""

    inputs: int
    """Features and the constant 1 of the bias, D + 1."""

    classes: int
    """Most classes, C."""

    original: int = 0
    """Classes that the head has from the start."""

    register: int = 0
    """How many of the latest samples can be forgotten."""


@dataclass(slots=True)
class OnlineSample:
    """One sample of the stream. While it is learned, the head's own object: copy what is kept."""

    number: int
    """Its place in the stream, from 0."""

    x: Array
    """Features and a 1, ``(D + 1,)``; empty where the learner keeps its samples itself."""

    row: int
    """Its class: a row of the layer."""

    age: int = 0
    """Samples that were learned since."""


class OnlineLearner(Checked):
    """Settings of a learner; all state is in arrays that the head holds."""

    guarantee: ClassVar[Guarantee]
    """What forgetting samples means."""

    how: ClassVar[str]
    """How samples are forgotten, in words."""

    class_guarantee: ClassVar[Guarantee]
    """What forgetting a whole class means."""

    class_how: ClassVar[str]
    """How a class is forgotten, in words."""

    keeps_samples: ClassVar[bool] = False
    """Whether samples can be forgotten by their numbers alone."""

    by_class: ClassVar[tuple[str, ...]] = ("layer",)
    """Arrays with one row a class."""

    @abstractmethod
    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the arrays before the first sample.

        Args:
            shape: Sizes.
            first: Weights and bias of the classes that are there from the start, ``(p, D + 1)``.

        Returns:
            Arrays by name; their sizes never change.
        """

    @abstractmethod
    def learn(self, state: State, sample: OnlineSample, classes: int) -> None:
        """Learn one sample, in place; ``classes`` of the rows are in use."""

    @abstractmethod
    def forget(self, state: State, samples: Sequence[OnlineSample], classes: int) -> None:
        """Forget samples, in place."""

    def layer(self, state: State, classes: int) -> Array:
        """Return weights and bias ``(classes, D + 1)``."""
        return state["layer"][:classes]

    def remove_class(self, state: State, row: int, classes: int) -> None:
        """Delete the rows of a class, in place; later rows move up."""
        for name in self.by_class:
            if name in state:
                delete_row(state[name], row, classes)

    def work_bytes(self, shape: HeadShape) -> int:
        """Return the bytes of temporary arrays of a step, at most."""
        return 8 * (4 * shape.classes + 3 * shape.inputs)


def first_layer(shape: HeadShape, first: Array | None, precision: Precision) -> Array:
    """Return a layer ``(C, D + 1)`` that begins with the rows given; the others are 0."""
    layer = np.zeros((shape.classes, shape.inputs), dtype=precision)
    if first is not None:
        layer[: len(first)] = first
    return layer


def delete_row(a: Array, row: int, used: int) -> None:
    """Delete one of the used rows of an array, in place; the last used row becomes 0."""
    a[row : used - 1] = a[row + 1 : used]
    a[used - 1] = 0


def add_outer(layer: Array, scale: float, e: Array, x: Array) -> None:
    """Add ``scale * e x^T`` to rows ``(n, D + 1)`` in place, without a temporary matrix."""
    ger = blas.dger if layer.dtype == np.float64 else blas.sger
    ger(scale, x, e, a=layer.T, overwrite_a=1)


def softmax(z: Array) -> Array:
    """Return the softmax of logits ``(n,)``, in place."""
    z -= np.maximum.reduce(z)
    np.exp(z, out=z)
    z /= np.add.reduce(z)
    return z
