"""Online head: a last layer on a frozen network that learns and forgets sample by sample."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas
from torch import Tensor, nn

from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.online.layer_export import ExportedLayer
from unlearnkit.online.online_learner import (
    Array,
    Guarantee,
    HeadShape,
    OnlineLearner,
    OnlineSample,
)
from unlearnkit.online.sample_register import SampleRegister, label_checksum


@dataclass(frozen=True)
class HeadForgetting:
    """What forgetting did."""

    numbers: tuple[int, ...]
    """The samples; empty for a class."""

    guarantee: Guarantee
    """``exact``: the layer equals that of the stream without the samples, up to rounding.
    ``independent``: it was trained anew without them, and is another one. ``approximate``:
    neither."""

    how: str
    """The method, in words."""

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.guarantee}: {self.how}"


class OnlineHead:
    """A last layer that learns one sample at a time within a budget of bytes, and can forget.

    All arrays have their full size from the start, so that memory never grows: the learner's, the
    register of the latest samples (4 bytes each), and one sample. The names of labels, the network
    and the interpreter are not counted.

    Args:
        learner: How it learns; decides how exact forgetting is.
        features: Numbers that the network returns for a sample, D.
        classes: Most classes, C.
        memory: Budget in bytes for all arrays, the temporary ones of a step included.
        register: How many of the latest samples can be forgotten.
        extractor: The frozen network, from inputs to features; None if samples are features.
        first_layer: Layer to start from, for the labels in ``labels``.
        labels: Labels of its rows.

    Raises:
        InputError: If the budget is too small or sizes do not fit.
    """

    def __init__(
        self,
        learner: OnlineLearner,
        *,
        features: int,
        classes: int,
        memory: int,
        register: int = 256,
        extractor: nn.Module | None = None,
        first_layer: nn.Linear | None = None,
        labels: Sequence[Hashable] = (),
    ) -> None:
        if features < 1 or classes < 1 or register < 0:
            raise InputError(
                f"OnlineHead: features and classes must be at least 1 and register at least 0, got"
                f" {features}, {classes}, {register}"
            )
        self.learner, self.extractor, self.labels = learner, extractor, list(labels)
        self.shape = HeadShape(features + 1, classes, len(self.labels), register)
        self.memory = memory
        first = _layer_array(first_layer, self.shape, self.labels)
        # Sizes are known from arrays of the least number of samples; the register comes on top.
        self.state = learner.start(self.shape, first)
        self._register = SampleRegister(register)
        self._input = np.ones(self.shape.inputs, dtype=np.float32)
        self._features = self._input[:-1]
        self._shape = self._features.shape
        self._latest = OnlineSample(-1, self._input, -1)
        self._number_rows()
        if self.bytes_needed > memory:
            raise InputError(
                f"OnlineHead: {type(learner).__name__} with {features} features, {classes} classes"
                f" and a register of {register} needs {self.bytes_needed:,} bytes, the budget is"
                f" {memory:,}; use fewer features, a smaller register, or another learner"
            )

    @property
    def bytes_held(self) -> int:
        """Return the bytes of all arrays that stay between samples."""
        arrays = [*self.state.values(), self._register.array, self._input]
        return sum(a.nbytes for a in arrays)

    @property
    def bytes_needed(self) -> int:
        """Return the bytes of all arrays, the temporary ones of a step included."""
        return self.bytes_held + self.learner.work_bytes(self.shape)

    @property
    def samples(self) -> int:
        """Return how many samples were learned, forgotten ones included."""
        return self._register.count

    def learn(self, x: Tensor | Array, label: Hashable) -> int:
        """Learn one sample: D finite features, and a label that has a row or for which one is left.

        Args:
            x: Features ``(D,)``, or an input of the network.
            label: Its class; a new one gets a row of zeros.

        Returns:
            The number of the sample, to forget it by.
        """
        self._fill(x)
        sample, known = self._latest, self._rows.get(label)
        sample.row, check = known or self._add_class(label)
        sample.number = number = self._register.add(self._input, check)
        self.learner.learn(self.state, sample, len(self._rows))
        return number

    def forget(
        self,
        numbers: int | Sequence[int],
        x: Tensor | Array | None = None,
        labels: Hashable | Sequence[Hashable] = None,
    ) -> HeadForgetting:
        """Forget samples; nothing has changed if this raises.

        Args:
            numbers: As ``learn`` returned them: one, or several.
            x: Their features or inputs, ``(D,)`` or ``(n, ...)``; not read by a learner that keeps
                its samples.
            labels: Their labels.

        Returns:
            How exact it is, and how it was done.

        Raises:
            InputError: If a sample was never learned, is forgotten already, is too old, or is not
                the one that was learned.
        """
        single = isinstance(numbers, int)
        names: list[int] = [numbers] if isinstance(numbers, int) else list(numbers)
        if len(set(names)) < len(names):
            raise InputError("forget: a sample is named twice; name each once")
        found = [
            self._sample(n, *pair)
            for n, pair in zip(names, self._pairs(names, x, labels, single=single), strict=True)
        ]
        self.learner.forget(self.state, found, len(self.labels))
        for n in names:
            self._register.strike(n)
        return HeadForgetting(tuple(names), self.learner.guarantee, self.learner.how)

    def forget_class(self, label: Hashable) -> HeadForgetting:
        """Forget a class: its row goes. It may come back, as a row of zeros.

        Args:
            label: Its label.

        Returns:
            How exact it is, and how it was done.
        """
        row, _ = self._row_of(label)
        self.learner.remove_class(self.state, row, len(self.labels))
        del self.labels[row]
        self._number_rows()
        return HeadForgetting((), self.learner.class_guarantee, self.learner.class_how)

    def scores(self, x: Tensor | Array) -> Array:
        """Return the score of each class ``(N, n)`` for features ``(N, D)`` or inputs."""
        rows = self.features(x)
        layer = self.learner.layer(self.state, len(self.labels))
        return np.asarray(rows @ layer[:, :-1].T + layer[:, -1])

    def predict(self, x: Tensor | Array) -> list[Any]:
        """Return the label of the largest score for each of N features or inputs."""
        if not self.labels:
            raise InputError("predict: the head has no class yet; let it learn a sample")
        return [self.labels[i] for i in self.scores(x).argmax(1)]

    def features(self, x: Tensor | Array) -> Array:
        """Return features ``(N, D)``, checked, of N inputs; features pass through."""
        if self.extractor is not None:
            x = torch.as_tensor(x)
            with eval_mode(self.extractor), torch.inference_mode():
                x = self.extractor(x).flatten(1)
        rows = np.asarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.shape.inputs - 1:
            raise InputError(
                f"OnlineHead: got features of shape {rows.shape}, the head has"
                f" {self.shape.inputs - 1} a sample; give (N, {self.shape.inputs - 1})"
            )
        if not np.isfinite(rows).all():
            raise InputError("OnlineHead: features are not finite; leave such samples out")
        return rows

    def export(self) -> ExportedLayer:
        """Return weights, biases and labels for a device."""
        layer = self.learner.layer(self.state, len(self.labels)).astype(np.float32)
        return ExportedLayer(
            layer[:, :-1].copy(), layer[:, -1].copy(), tuple(map(str, self.labels))
        )

    def _fill(self, x: Tensor | Array) -> None:
        """Put one sample into the head's own array, whose last entry is 1."""
        if self.extractor is not None:
            x = self.features(torch.as_tensor(x)[None])[0]
        if x.shape != self._shape:
            raise InputError(
                f"OnlineHead: got features of shape {tuple(x.shape)}, the head has"
                f" {len(self._features)} a sample; give ({len(self._features)},)"
            )
        self._features[:] = x
        # A norm is finite only if all entries are; where it is too large, look again.
        if not math.isfinite(blas.snrm2(self._input)) and not np.isfinite(self._input).all():
            raise InputError("OnlineHead: features are not finite; leave the sample out")

    def _number_rows(self) -> None:
        self._rows = {name: (i, label_checksum(name)) for i, name in enumerate(self.labels)}

    def _add_class(self, label: Hashable) -> tuple[int, int]:
        if len(self.labels) == self.shape.classes:
            raise InputError(
                f"learn: {label!r} would be class {len(self.labels) + 1} of {self.shape.classes};"
                " build the head with more classes, or forget one"
            )
        self.labels.append(label)
        self._number_rows()
        return self._rows[label]

    def _row_of(self, label: Hashable) -> tuple[int, int]:
        if label not in self._rows:
            raise UnknownNameError("label", str(label), map(str, self.labels))
        return self._rows[label]

    def _pairs(
        self, names: list[int], x: Any, labels: Any, *, single: bool
    ) -> Iterable[tuple[Array | None, Hashable]]:
        if self.learner.keeps_samples and x is None:
            return [(None, None)] * len(names)
        if x is None or labels is None:
            raise InputError(
                f"forget: {type(self.learner).__name__} keeps no samples; give their features and"
                " labels"
            )
        x = torch.as_tensor(x)
        x = x[None] if single else x
        # One by one, as they were learned: networks round otherwise in batches.
        parts = [x] if self.extractor is None else x.split(1)
        rows = np.concatenate([self.features(part) for part in parts])
        owned = [labels] if single else list(labels)
        if len(rows) != len(names) or len(owned) != len(names):
            raise InputError(
                f"forget: {len(names)} samples, {len(rows)} rows of features and {len(owned)}"
                " labels; give one of each"
            )
        return zip(rows, owned, strict=True)

    def _sample(self, number: int, x: Array | None, label: Hashable) -> OnlineSample:
        age = self._register.count - 1 - number
        if x is None:
            self._register.check(number, None, 0)
            return OnlineSample(number, np.empty(0, dtype=np.float32), -1, age)
        row = np.append(x, np.float32(1))
        at, check = self._row_of(label)
        self._register.check(number, row, check)
        return OnlineSample(number, row, at, age)


def _layer_array(
    layer: nn.Linear | None, shape: HeadShape, labels: Sequence[Hashable]
) -> Array | None:
    if layer is None:
        if labels:
            raise InputError("OnlineHead: labels are those of a first layer; give first_layer")
        return None
    weight = layer.weight.detach().cpu().numpy()
    if weight.shape != (len(labels), shape.inputs - 1) or len(labels) > shape.classes:
        raise InputError(
            f"OnlineHead: a first layer of shape {weight.shape} with {len(labels)} labels, for"
            f" {shape.inputs - 1} features and at most {shape.classes} classes; give one label a"
            " row"
        )
    bias = np.zeros(len(labels)) if layer.bias is None else layer.bias.detach().cpu().numpy()
    return np.concatenate([weight, bias[:, None]], 1)
