"""Regularised risk: value, gradient and Hessian of what a linear model minimises.

``F(W) = sum_i s_i loss(W x_i, y_i) + 1/2 sum_kd ridge_d W_kd^2 + sum_kd lasso_d |W_kd| + <B, W>``,
with weights ``W (K, D)``, sample weights ``s (N,)`` and the linear tilt ``B (K, D)`` of objective
perturbation. The penalty does not depend on the number of rows, as with scikit-learn's ``alpha`` of
``Ridge`` and ``C`` of ``LogisticRegression``: a model retrained on fewer rows has the same.

Where several scores share a column without any penalty, such as an intercept, only differences of
its weights matter; ``1/2 (sum_k W_kd)^2`` is added there, which sets their sum to 0 and changes no
prediction.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import eigh

from unlearnkit.linear.design_matrix import SLACK, is_sparse, squares
from unlearnkit.linear.losses import Array, Loss, Matrix

MOST_DENSE = 4096
"""Most parameters ``K D`` for which a Hessian is formed and stored (128 MiB)."""


@dataclass(frozen=True)
class Risk:
    """A data set, a loss and a penalty."""

    x: Matrix
    """Rows ``(N, D)``; an intercept is a last column of ones."""

    y: Array
    """Targets as the loss reads them ``(N,)``."""

    weights: Array
    """Sample weights ``(N,)``; 0 is a row that does not count."""

    loss: Loss
    """Loss of a row."""

    outputs: int
    """Number of scores a row, K."""

    ridge: Array
    """Squared penalty of each column ``(D,)``."""

    lasso: Array
    """Absolute penalty of each column ``(D,)``."""

    tilt: Array
    """Noise of objective perturbation ``(K, D)``; zeros without it."""

    @property
    def size(self) -> int:
        """Number of parameters, ``K D``."""
        return self.outputs * len(self.ridge)

    @property
    def gauge(self) -> Array:
        """Ones at columns whose weights only matter by their differences ``(D,)``."""
        free = (self.ridge == 0) & (self.lasso == 0) & (self.outputs > 1)
        out: Array = free.astype(np.float64)
        return out

    def _penalty_product(self, v: Array) -> Array:
        out: Array = v * self.ridge + v.sum(axis=0) * self.gauge
        return out

    def scores(self, w: Array) -> Array:
        """Return ``X W^T``, ``(N, K)``."""
        if self.outputs == 1:
            return np.asarray(self.x @ w[0])[:, None]
        out: Array = np.asarray(self.x @ w.T)
        return out

    def _transposed(self, t: Array) -> Array:
        """Return ``t^T X``, ``(K, D)``; a product with a vector is the fastest for sparse rows."""
        if self.outputs == 1:
            return np.asarray(self.x.T @ t[:, 0])[None]
        out: Array = np.asarray(self.x.T @ t).T
        return out

    def value(self, w: Array) -> float:
        """Return the smooth part of F: all but the absolute penalty."""
        data = self.weights @ self.loss.value(self.scores(w), self.y)
        penalty = (w**2 @ self.ridge).sum() + w.sum(axis=0) ** 2 @ self.gauge
        return float(data + 0.5 * penalty + (self.tilt * w).sum())

    def gradient(self, w: Array) -> Array:
        """Return the gradient of the smooth part ``(K, D)``."""
        return self.data_gradient(w) + self._penalty_product(w) + self.tilt

    def data_gradient(self, w: Array) -> Array:
        """Return the gradient of the losses alone ``(K, D)``."""
        slope = self.loss.slope(self.scores(w), self.y) * self.weights[:, None]
        return self._transposed(slope)

    def blocks(self, w: Array) -> Array:
        """Return the weighted second derivatives by the scores ``(N, K, K)``."""
        return self.loss.curvature(self.scores(w), self.y) * self.weights[:, None, None]

    def hessian(self, w: Array) -> Array:
        """Return the Hessian of the smooth part ``(K D, K D)``, weights in row order."""
        found = data_hessian(self.x, self.blocks(w))
        found[np.diag_indices(self.size)] += np.tile(self.ridge, self.outputs)
        if self.gauge.any():
            found += np.kron(np.ones((self.outputs, self.outputs)), np.diag(self.gauge))
        return found

    def product(self, blocks: Array, v: Array) -> Array:
        """Return the Hessian with these blocks times ``v (K, D)``."""
        turned = np.einsum("nkl,nl->nk", blocks, self.scores(v))
        return self._transposed(turned) + self._penalty_product(v)

    def diagonal(self, blocks: Array) -> Array:
        """Return the diagonal of the Hessian ``(K, D)``."""
        own = np.einsum("nkk->nk", blocks)
        out: Array = np.asarray(squares(self.x).T @ own).T + self.ridge + self.gauge
        return out

    def rows(self, rows: NDArray[np.intp]) -> "Risk":
        """Return the same risk on some rows, without penalty and tilt."""
        none = np.zeros_like(self.ridge)
        return Risk(
            self.x[rows],
            self.y[rows],
            self.weights[rows],
            self.loss,
            self.outputs,
            none,
            none,
            np.zeros_like(self.tilt),
        )


@dataclass(frozen=True)
class Change:
    """What a request changes: the same rows before and after it."""

    before: Risk
    """The affected rows as they were."""

    after: Risk
    """The affected rows as they are now; removed rows have weight 0."""

    def gradient(self, w: Array) -> Array:
        """Return new minus old gradients ``(K, D)``, G of Warnecke et al."""
        return self.after.data_gradient(w) - self.before.data_gradient(w)


def data_hessian(x: Matrix, blocks: Array) -> Array:
    """Return ``sum_i blocks_i (x) x_i x_i^T``, ``(K D, K D)``."""
    count, width = blocks.shape[1], x.shape[1]
    found = np.empty((count, width, count, width))
    for k in range(count):
        for m in range(k, count):
            found[k, :, m] = weighted_gram(x, blocks[:, k, m])
            found[m, :, k] = found[k, :, m]
    return found.reshape(count * width, count * width)


def weighted_gram(x: Matrix, weights: Array) -> Array:
    """Return ``X^T diag(weights) X``, dense ``(D, D)``."""
    if is_sparse(x):
        out: Array = (x.T @ sp.diags_array(weights) @ x).toarray()
        return out
    dense: Array = x.T @ (weights[:, None] * x)
    return dense


def spectral_norm(gram: Array) -> float:
    """Return an upper bound on the largest singular value of X from ``X^T X``."""
    last = len(gram) - 1
    top = eigh(gram, eigvals_only=True, subset_by_index=[last, last])[0]
    return float(np.sqrt(max(top, 0.0)) * SLACK)
