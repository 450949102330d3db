"""Losses of linear scores: value, first, second and a bound on the third derivative.

A loss reads scores ``z (N, K)`` and targets ``y (N,)`` and answers for each row. K is 1 but for the
multinomial loss. All arrays are float64; losses are in nats or, for squares, in squared units of
the target.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

Array = NDArray[np.float64]
Matrix = Any
"""Rows ``(N, D)``: a dense float64 array or a SciPy CSR array, which share ``@`` and ``.T``."""

LOGISTIC_THIRD = 1 / (6 * math.sqrt(3))
"""Largest absolute third derivative of ``log(1 + exp(z))``, at ``expit(z) = (3 ± sqrt 3) / 6``."""


class Loss:
    """A loss of a row, with what a certificate needs to know of it.

    A loss of your own derives from this class and says whether it is convex; ``third_bound`` must
    hold for every target.
    """

    convex: ClassVar[bool] = True
    """Whether the loss is convex in the scores; a certificate needs that."""

    fixed_curvature: ClassVar[bool] = True
    """Whether the second derivative is the same for every target."""

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``."""
        raise NotImplementedError

    def slope(self, z: Array, y: Array) -> Array:
        """Return the first derivatives by the scores ``(N, K)``."""
        raise NotImplementedError

    def curvature(self, z: Array, y: Array) -> Array:
        """Return the second derivatives by the scores ``(N, K, K)``."""
        raise NotImplementedError

    def slope_bound(self) -> float:
        """Return the largest norm of the first derivative; infinite without one."""
        return math.inf

    def third_bound(self, radius: Array) -> Array:
        """Return bounds on the third derivative wherever the scores have at most this norm.

        Args:
            radius: Norms of scores ``(N,)``.

        Returns:
            For each, M with ``||curvature(a) - curvature(b)|| <= M ||a - b||`` inside that ball.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SquaredLoss(Loss):
    """``(z - y)^2 / 2``: third derivative 0, so that one Newton step is exact."""

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``."""
        return 0.5 * (z[:, 0] - y) ** 2

    def slope(self, z: Array, y: Array) -> Array:
        """Return the residuals ``(N, 1)``."""
        return z - y[:, None]

    def curvature(self, z: Array, y: Array) -> Array:
        """Return ones ``(N, 1, 1)``."""
        return np.ones((len(z), 1, 1))

    def third_bound(self, radius: Array) -> Array:
        """Return zeros."""
        return np.zeros_like(radius)


@dataclass(frozen=True)
class LogisticLoss(Loss):
    """``log(1 + exp(z)) - y z`` for ``y`` in {0, 1}."""

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``, in nats."""
        return np.logaddexp(0.0, z[:, 0]) - y * z[:, 0]

    def slope(self, z: Array, y: Array) -> Array:
        """Return predicted probabilities minus targets ``(N, 1)``."""
        out: Array = expit(z) - y[:, None]
        return out

    def curvature(self, z: Array, y: Array) -> Array:
        """Return ``p (1 - p)``, ``(N, 1, 1)``."""
        out: Array = (expit(z) * expit(-z))[:, :, None]
        return out

    def slope_bound(self) -> float:
        """Return 1."""
        return 1.0

    def third_bound(self, radius: Array) -> Array:
        """Return ``1 / (6 sqrt 3)``, about 0.0962."""
        return np.full_like(radius, LOGISTIC_THIRD)


@dataclass(frozen=True)
class SmoothHingeLoss(Loss):
    """``h log(1 + exp((1 - y z) / h))`` for ``y`` in {-1, 1}; tends to the hinge as h tends to 0.

    The quadratic smooth hinge of Rennie and Srebro (2005) has a second derivative with jumps, for
    which no bound of a Newton step holds; this one has three derivatives.
    """

    smoothing: float = 0.5
    """The width h of the bend, in units of the score."""

    fixed_curvature: ClassVar[bool] = False

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``."""
        out: Array = self.smoothing * np.logaddexp(0.0, (1 - y * z[:, 0]) / self.smoothing)
        return out

    def slope(self, z: Array, y: Array) -> Array:
        """Return the first derivatives ``(N, 1)``, between -1 and 1."""
        out: Array = -y[:, None] * expit((1 - y[:, None] * z) / self.smoothing)
        return out

    def curvature(self, z: Array, y: Array) -> Array:
        """Return the second derivatives ``(N, 1, 1)``, at most ``1 / (4 h)``."""
        t = (1 - y[:, None] * z) / self.smoothing
        out: Array = (expit(t) * expit(-t))[:, :, None] / self.smoothing
        return out

    def slope_bound(self) -> float:
        """Return 1."""
        return 1.0

    def third_bound(self, radius: Array) -> Array:
        """Return ``1 / (6 sqrt(3) h^2)``."""
        return np.full_like(radius, LOGISTIC_THIRD / self.smoothing**2)


@dataclass(frozen=True)
class PoissonLoss(Loss):
    """``exp(z) - y z``: counts with a log link, up to a constant."""

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``, in nats."""
        out: Array = np.exp(z[:, 0]) - y * z[:, 0]
        return out

    def slope(self, z: Array, y: Array) -> Array:
        """Return predicted means minus counts ``(N, 1)``."""
        out: Array = np.exp(z) - y[:, None]
        return out

    def curvature(self, z: Array, y: Array) -> Array:
        """Return predicted means ``(N, 1, 1)``."""
        out: Array = np.exp(z)[:, :, None]
        return out

    def third_bound(self, radius: Array) -> Array:
        """Return ``exp(radius)``: the third derivative has no bound that holds everywhere."""
        out: Array = np.exp(np.minimum(radius, 700.0))  # the largest that float64 holds
        return out


@dataclass(frozen=True)
class MultinomialLoss(Loss):
    """``logsumexp(z) - z_y`` for classes ``y`` in 0 to K - 1, all classes in one problem."""

    def value(self, z: Array, y: Array) -> Array:
        """Return the losses ``(N,)``, in nats."""
        out: Array = -log_softmax(z, axis=1)[np.arange(len(z)), y.astype(int)]
        return out

    def slope(self, z: Array, y: Array) -> Array:
        """Return predicted probabilities minus the one-hot target ``(N, K)``."""
        out: Array = softmax(z, axis=1)
        out[np.arange(len(z)), y.astype(int)] -= 1
        return out

    def curvature(self, z: Array, y: Array) -> Array:
        """Return ``diag(p) - p p^T``, ``(N, K, K)``."""
        p = softmax(z, axis=1)
        out: Array = -p[:, :, None] * p[:, None, :]
        at = np.arange(z.shape[1])
        out[:, at, at] += p
        return out

    def slope_bound(self) -> float:
        """Return ``sqrt 2``: the distance of two probability vectors."""
        return math.sqrt(2)

    def third_bound(self, radius: Array) -> Array:
        """Return ``1 / sqrt 2``.

        The third derivative along unit ``u, u, v`` is ``E[(u - Eu)^2 (v - Ev)]`` under p. A unit
        vector's entries are at most ``sqrt 2`` apart, so the variance of u is at most 1/2 and
        ``|v - Ev|`` at most ``sqrt 2``.
        """
        return np.full_like(radius, math.sqrt(0.5))
