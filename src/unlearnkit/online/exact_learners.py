"""Exact learners: last layers from which a sample can be taken out as if it had never come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.linalg import blas

from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.online.online_learner import (
    Array,
    Guarantee,
    HeadShape,
    OnlineLearner,
    OnlineSample,
    Precision,
    State,
    add_outer,
    first_layer,
)

ADD = {"float32": blas.saxpy, "float64": blas.daxpy}
"""What adds a sample in place; NumPy takes longer, as it adds mixed types in pieces."""

LEAST_DENOMINATOR = 1e-6
"""Below this, ``1 - x^T P x`` of a downdate is rounding."""


class RecursiveLeastSquares(OnlineLearner):
    """Ridge regression on one-hot targets, one sample at a time (Plackett, Biometrika 1950).

    Minimises ``sum_i |W x_i - t_i|^2 + ridge |W - W_0|^2``, bias included; ``W_0`` is the layer
    that the head starts from, or 0. Only one triangle of the inverse
    ``P = (sum_i x_i x_i^T + ridge I)^-1`` is kept: ``(D + 1)(D + 2) / 2`` numbers.
    """

    guarantee: ClassVar[Guarantee] = "exact"
    how: ClassVar[str] = "rank-one downdate of the least squares solution"
    class_guarantee: ClassVar[Guarantee] = "approximate"
    class_how: ClassVar[str] = (
        "its row is deleted; its samples still count as examples against the other classes: forget"
        " them one by one first"
    )

    ridge: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Penalty on the squared distance from the first weights (lambda)."""

    precision: Precision = "float32"
    """Of the state. Rounding adds up over samples: 1e-4 of the weights after 1,000 in float32,
    1e-12 in float64, at unit features and ridge 1."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return the first layer and ``P = I / ridge``."""
        n = shape.inputs
        inverse = np.zeros(n * (n + 1) // 2, dtype=self.precision)
        at = np.arange(n)
        inverse[at * (at + 3) // 2] = 1 / self.ridge
        return {"layer": first_layer(shape, first, self.precision), "inverse": inverse}

    def learn(self, state: State, sample: OnlineSample, classes: int) -> None:
        """Add one sample: Sherman-Morrison."""
        self._update(state, sample, classes, 1.0)

    def forget(self, state: State, samples: Sequence[OnlineSample], classes: int) -> None:
        """Take samples out: the same formula with weight -1."""
        for i, sample in enumerate(samples):
            if not self._update(state, sample, classes, -1.0):
                for earlier in samples[:i]:
                    self._update(state, earlier, classes, 1.0)
                raise DivergedError(
                    f"forget: the inverse has lost the precision to take out sample"
                    f" {sample.number}; use precision='float64' or a larger ridge"
                )

    @staticmethod
    def _update(state: State, sample: OnlineSample, classes: int, weight: float) -> bool:
        layer, inverse, x = state["layer"][:classes], state["inverse"], sample.x
        double = layer.dtype == np.float64
        x = x.astype(layer.dtype, copy=False)
        g = (blas.dspmv if double else blas.sspmv)(len(x), 1.0, inverse, x)
        scale = 1 + weight * float(x.dot(g))
        if scale < LEAST_DENOMINATOR:
            return False
        e = layer.dot(x)
        e[sample.row] -= 1
        add_outer(layer, -weight / scale, e, g)
        (blas.dspr if double else blas.sspr)(len(x), -weight / scale, g, inverse, overwrite_ap=1)
        return True


class ClassMeans(OnlineLearner):
    """The class whose mean feature vector is nearest (Mensink et al., PAMI 2013).

    Keeps the sum of the features of each class and their number. As a layer: weights ``m_c`` and
    bias ``-|m_c|^2 / 2``.
    """

    guarantee: ClassVar[Guarantee] = "exact"
    how: ClassVar[str] = "subtracted from the sum and the count of its class"
    class_guarantee: ClassVar[Guarantee] = "exact"
    class_how: ClassVar[str] = "its sum and count are deleted; no other class has seen its samples"
    by_class: ClassVar[tuple[str, ...]] = ("sums",)

    precision: Precision = "float64"
    """Of the sums."""

    def start(self, shape: HeadShape, first: Array | None) -> State:
        """Return sums and counts of 0.

        Raises:
            InputError: If there is a first layer: it says nothing of means.
        """
        if first is not None:
            raise InputError(
                "ClassMeans: cannot start from a layer; let it learn samples of its classes, or use"
                " RecursiveLeastSquares"
            )
        return {"sums": np.zeros((shape.classes, shape.inputs), dtype=self.precision)}

    def learn(self, state: State, sample: OnlineSample, classes: int) -> None:
        """Add the sample, whose last entry 1 counts it."""
        ADD[self.precision](sample.x, state["sums"][sample.row])

    def forget(self, state: State, samples: Sequence[OnlineSample], classes: int) -> None:
        """Subtract samples; a class without any is 0 again in every bit."""
        for sample in samples:
            sums = state["sums"][sample.row]
            ADD[self.precision](sample.x, sums, a=-1.0)
            if sums[-1] < 0.5:
                sums[:] = 0

    def layer(self, state: State, classes: int) -> Array:
        """Return means and biases; a class without samples has the least bias there is."""
        layer = state["sums"][:classes].astype(np.float64)
        counts = layer[:, -1:].copy()
        layer /= np.maximum(counts, 1)
        layer[:, -1] = -0.5 * np.einsum("cd,cd->c", layer[:, :-1], layer[:, :-1])
        layer[counts[:, 0] < 0.5, -1] = np.finfo(np.float32).min
        return layer

    def work_bytes(self, shape: HeadShape) -> int:
        """Return the bytes of temporary arrays; a prediction computes the layer."""
        return 16 * shape.classes * shape.inputs + super().work_bytes(shape)
