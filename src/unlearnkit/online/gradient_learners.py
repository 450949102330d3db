"""Gradient learners: last layers that take a step of the cross-entropy for each sample.

The variants of Avi, Albanese and Brunelli, "Incremental Online Learning Algorithms Comparison for
Gesture and Visual Smart Sensors", IJCNN 2022, arXiv:2209.00591. Their program divides whole numbers
where LWF's weights are computed; here these are fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

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
    delete_row,
    first_layer,
    softmax,
)

LEAST_ERROR = 1e-6
"""Errors below this are not scaled up further."""

HALF_LIFE = 100
"""LWF's constant without batches: lambda is 100 / (100 + samples)."""


class GradientLearner(OnlineLearner):
    """What the variants share: the layer, a batch of steps, and how a step is taken back.

    A step moved row c of the layer by ``-lr e_c x``. Later steps have undone a part of that: with
    the curvature ``H_c = sum_k n_k / n * v_kc m_k m_k^T`` of the stream so far, where ``m_k`` is
    the mean of the ``n_k`` samples of class k and ``v_kc`` their mean of ``p_c (1 - p_c)``, what is
    left of a step of that age is ``-lr e_c exp(-lr * age * H_c) x``. Forgetting adds this back. The
    errors e are those of the present layer, scaled to the error ``1 - p_y`` that the sample had
    when it was learned: one byte a sample of the register. The rest needs C (D + 1) + C^2 numbers.
    Where one class comes after another, the stream's past is no guide to later steps, and the
    result can be farther from the stream without the samples than before.
    """

    guarantee: ClassVar[Guarantee] = "approximate"
    how: ClassVar[str] = (
        "what later steps have left of its step is taken back, as far as the means of the classes"
        " tell it"
    )
    class_guarantee: ClassVar[Guarantee] = "approximate"
    class_how: ClassVar[str] = (
        "its row is deleted: the scores of other classes are as they were, and their rows still"
        " hold what they learned from its samples"
    )
    by_class: ClassVar[tuple[str, ...]] = (
        "layer",
        "sums",
        "variance",
        "batch_sum",
        "copy",
        "share",
        "seen",
    )

    steps_in: ClassVar[tuple[str, ...]] = ("layer",)
    """Arrays that hold the steps."""

    lr: float = Field(0.05, gt=0, allow_inf_nan=False)
    """Learning rate of a step (alpha), for features of mean square norm 1."""

    batch: int = Field(1, ge=1)
    """Samples in a batch (k)."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the first layer and the means that forgetting needs."""
        return {
            "layer": first_layer(shape, first, "float32"),
            "sums": np.zeros((shape.classes, shape.inputs), dtype=np.float32),
            "variance": np.zeros((shape.classes, shape.classes), dtype=np.float32),
            "errors": np.zeros(shape.register, dtype=np.uint8),
            "samples": np.zeros(1, dtype=np.int64),
            "pending": np.zeros(2, dtype=np.int64),
        }

    def learn(self, state: State, sample: OnlineSample, classes: int) -> None:
        """Take a step of the cross-entropy."""
        x, samples = sample.x, state["samples"]
        p = softmax(state["layer"][:classes].dot(x))
        count = int(samples[0])
        samples[0] = count + 1
        sums = state["sums"][sample.row]
        sums += x
        variance = state["variance"][sample.row][:classes]
        variance += p - p * p
        errors = state["errors"]
        if len(errors):
            errors[sample.number % len(errors)] = 255 * (1 - float(p[sample.row])) + 0.5
        p[sample.row] -= 1
        self._step(state, self._errors(state, p, sample, count, classes), sample)

    def forget(self, state: State, samples: Sequence[OnlineSample], classes: int) -> None:
        """Take back the steps of samples, all with the errors of the layer as it is."""
        count, layer = int(state["samples"][0]), state["layer"][:classes].copy()
        moved: list[tuple[OnlineSample, Array]] = []
        for sample in samples:
            e = softmax(layer.dot(sample.x))
            e[sample.row] -= 1
            place = count - 1 - sample.age
            if state["pending"][0] and sample.number >= state["pending"][1]:
                self._take_out(state, self._errors(state, e, sample, place, classes), sample)
            else:
                first = float(state["errors"][sample.number % len(state["errors"])]) / 255
                e *= np.float32(first / max(-float(e[sample.row]), LEAST_ERROR))
                moved.append((sample, self._label_errors(state, e, place)))
        if moved:
            self._take_back(state, moved, classes)
        for sample in samples:
            state["sums"][sample.row] -= sample.x
        state["samples"] -= len(samples)

    def _take_back(
        self, state: State, moved: Sequence[tuple[OnlineSample, Array]], classes: int
    ) -> None:
        """Add back to each row what later steps have left of the steps of samples."""
        counts = np.maximum(state["sums"][:classes, -1:], 1)
        means, total = state["sums"][:classes] / counts, max(float(counts.sum()), 1.0)
        rates = self._rates(state, classes)
        for c in range(classes):
            weight = np.sqrt(state["variance"][:classes, c : c + 1] / total)
            values, vectors = curvature(weight * means)
            for sample, e in moved:
                decay = np.expm1(-rates[c] * sample.age * values)
                left = sample.x + (decay * (vectors @ sample.x)) @ vectors
                for name in self.steps_in:
                    state[name][c] += (rates[c] * e[c]) * left

    def _rates(self, state: State, classes: int) -> Array:
        """Return the share of a sample's step that reached each row, times the rate ``(n,)``."""
        return np.full(classes, self.lr / self.batch)

    def _errors(
        self, state: State, e: Array, sample: OnlineSample, count: int, classes: int
    ) -> Array:
        """Return the errors that steps are made of, from ``p - t``; 0 in rows that stay."""
        return e

    def _label_errors(self, state: State, e: Array, count: int) -> Array:
        """Return the part of the errors that the label of a sample decides, from ``p - t``."""
        return e

    def _step(self, state: State, e: Array, sample: OnlineSample) -> None:
        """Move the layer, or add the step to the batch and move it where the batch is full."""
        rows = state["layer"][: len(e)]
        if self.batch == 1:
            add_outer(rows, -self.lr, e, sample.x)
            return
        add_outer(state["batch_sum"][: len(e)], 1.0, e, sample.x)
        if self._count_pending(state, sample):
            state["layer"] -= np.float32(self.lr / self.batch) * state["batch_sum"]
            state["batch_sum"][:] = 0

    def _count_pending(self, state: State, sample: OnlineSample) -> bool:
        """Count a sample of the batch; return whether the batch is full, and empty the count."""
        pending = state["pending"]
        if not pending[0]:
            pending[1] = sample.number
        pending[0] += 1
        full = bool(pending[0] == self.batch)
        if full:
            pending[0] = 0
        return full

    def _take_out(self, state: State, e: Array, sample: OnlineSample) -> None:
        """Take a step out of the batch, which has not moved the layer yet."""
        add_outer(state["batch_sum"][: len(e)], -1.0, e, sample.x)
        state["pending"][0] -= 1

    def remove_class(self, state: State, row: int, classes: int) -> None:
        """Delete the rows of a class, in place, and its column of variances."""
        super().remove_class(state, row, classes)
        delete_row(state["variance"].T, row, classes)

    def work_bytes(self, shape: HeadShape) -> int:
        """Return the bytes of temporary arrays; a full batch and forgetting copy the layer."""
        return 12 * shape.classes * shape.inputs + super().work_bytes(shape)


class LastLayerSGD(GradientLearner):
    """Stochastic gradient descent on the last layer (TinyOL; ``rows="new"`` is TinyOL V2)."""

    rows: Literal["all", "new"] = "all"
    """Rows that learn: all, or those of classes that the head did not have from the start."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the arrays, the sum of a batch, and how many rows do not learn."""
        state = super().start(shape, first)
        if self.batch > 1:
            state["batch_sum"] = np.zeros_like(state["layer"])
        state["fixed"] = np.array([shape.original if self.rows == "new" else 0])
        return state

    def _errors(
        self, state: State, e: Array, sample: OnlineSample, count: int, classes: int
    ) -> Array:
        return self._label_errors(state, e, count)

    def _label_errors(self, state: State, e: Array, count: int) -> Array:
        e[: state["fixed"][0]] = 0
        return e

    def remove_class(self, state: State, row: int, classes: int) -> None:
        """Delete the rows of a class; if it was fixed, one fewer is."""
        super().remove_class(state, row, classes)
        state["fixed"] -= row < state["fixed"]


class LearningWithoutForgetting(GradientLearner):
    """Learning without forgetting (Li and Hoiem, ECCV 2016): towards labels and a frozen copy.

    Errors ``(1 - lambda)(p - t) + lambda (p - z)``, with z the softmax of a copy of the layer. With
    a step a sample the copy is the first layer and ``lambda = 100 / (100 + c)`` after c samples;
    with batches of k it is the layer before the batch, and lambda is 1 up to k samples, then
    ``k / c``.
    """

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the arrays, the copy, and the sum of a batch."""
        state = super().start(shape, first)
        state["copy"] = state["layer"].copy()
        if self.batch > 1:
            state["batch_sum"] = np.zeros_like(state["layer"])
        return state

    def weight(self, count: int) -> float:
        """Return lambda, the weight of the copy, after so many samples."""
        if self.batch == 1:
            return HALF_LIFE / (HALF_LIFE + max(count, 0))
        return 1.0 if count <= self.batch else self.batch / count

    def _errors(
        self, state: State, e: Array, sample: OnlineSample, count: int, classes: int
    ) -> Array:
        share = np.float32(self.weight(count))
        e -= share * softmax(state["copy"][:classes].dot(sample.x))
        e[sample.row] += share
        return e

    def _label_errors(self, state: State, e: Array, count: int) -> Array:
        e *= np.float32(1 - self.weight(count))
        return e

    def _step(self, state: State, e: Array, sample: OnlineSample) -> None:
        super()._step(state, e, sample)
        if self.batch > 1 and not state["pending"][0]:
            state["copy"][:] = state["layer"]


class ConsolidatedWeights(GradientLearner):
    """Copy weights with re-initialisation (CWR; Lomonaco and Maltoni, CoRL 2017).

    A training layer learns by a step a sample. After each batch, the row of each class that was in
    it ``u`` times is averaged into the layer that predicts, ``(u c + w) / (u + 1)``, and training
    goes on from there.
    """

    steps_in: ClassVar[tuple[str, ...]] = ("layer", "copy")

    batch: int = Field(16, ge=1)
    """Samples after which the training layer is averaged into the other (k)."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the training layer, the one that predicts, and the counts of the batch."""
        state = super().start(shape, first)
        state["copy"] = state["layer"].copy()
        state["seen"] = np.zeros(shape.classes, dtype=np.int32)
        state["share"] = np.zeros(shape.classes, dtype=np.float32)
        state["batches"] = np.zeros(1, dtype=np.int32)
        return state

    def layer(self, state: State, classes: int) -> Array:
        """Return the averaged layer."""
        return state["copy"][:classes]

    def _step(self, state: State, e: Array, sample: OnlineSample) -> None:
        add_outer(state["layer"][: len(e)], -self.lr, e, sample.x)
        state["seen"][sample.row] += 1
        if self._count_pending(state, sample):
            self._consolidate(state)

    def _consolidate(self, state: State) -> None:
        weights, training, seen = state["copy"], state["layer"], state["seen"]
        kept = np.where(seen > 0, 1 / (seen + 1), 0).astype(np.float32)
        training -= weights
        training *= kept[:, None]
        weights += training
        training[:] = weights
        state["batches"] += 1
        state["share"] += (kept - state["share"]) / np.float32(state["batches"][0])
        seen[:] = 0

    def _take_out(self, state: State, e: Array, sample: OnlineSample) -> None:
        add_outer(state["layer"][: len(e)], self.lr, e, sample.x)
        state["seen"][sample.row] -= 1
        state["pending"][0] -= 1

    def _rates(self, state: State, classes: int) -> Array:
        return np.asarray(self.lr * state["share"][:classes])


def curvature(factor: Array) -> tuple[Array, Array]:
    """Return the eigenvalues above 0 of ``F^T F`` and their eigenvectors, as rows."""
    values, turn = np.linalg.eigh(factor @ factor.T)
    kept = values > values[-1] * 1e-6
    values, turn = values[kept], turn[:, kept]
    return values, (turn / np.sqrt(values)).T @ factor
