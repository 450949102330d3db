"""Removal state: everything that the next request needs, in O(P^2) numbers."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.linear.design_matrix import norm_bound, row_norms
from unlearnkit.linear.losses import Array
from unlearnkit.linear.regularized_risk import MOST_DENSE, Risk, spectral_norm, weighted_gram
from unlearnkit.linear.risk_minimizer import cholesky_solve


class NeedsRetrain(UnlearnkitError):  # noqa: N818  # the name that users of the literature expect
    """The budget cannot pay for this request; the model is as it was before."""


@dataclass(frozen=True)
class Factors:
    """Curvature at the anchor, stored so that a request needs no pass over the rows."""

    inverse: Array
    """Inverse Hessian ``(P, P)``: of all rows (jackknife) or of those that stay (Newton step)."""

    hessian: Array
    """The Hessian itself ``(P, P)``."""

    gram: Array
    """``X^T diag(s) X`` of the rows that stay ``(D, D)``."""

    shift: Array
    """Hessian of the rows that stay minus ``hessian``, ``(P, P)``."""

    pull: Array
    """Sum over requests of old minus new gradients at the anchor ``(K, D)``."""


@dataclass(frozen=True)
class RemovalState:
    """Weights, accounts and stored factors between two requests."""

    w: Array
    """Weights without output noise ``(K, D)``; keep them private where noise is released."""

    anchor: Array
    """Weights at which the stored gradients and factors were computed ``(K, D)``."""

    tilt: Array
    """Noise of objective perturbation ``(K, D)``; keep it private."""

    removed_rows: NDArray[np.bool_]
    """Which rows are removed ``(N,)``."""

    new_labels: dict[int, float]
    """New targets of rows, as the loss reads them."""

    dropped_columns: tuple[int, ...]
    """Columns that are removed."""

    spectral: float
    """Upper bound on the spectral norm of ``diag(sqrt s) X``; removing only lowers it."""

    row_norm: float
    """Upper bound on the norm of a row."""

    gradient_mean: Array
    """Mean gradient of the rows at the anchor ``(K, D)``."""

    gradient_spread: float
    """Mean squared distance of the rows' gradients from that mean."""

    residual: float
    """Bound on the gradient residual norm at the anchor."""

    budget_spent: float
    """Bound on the gradient residual norm now, or the measured one where that is charged."""

    factors: Factors | None = None
    """Stored factors; None for the method that reads the rows at each request."""

    history: tuple[float, ...] = field(default=())
    """``spent`` after each request since the last fit."""

    releases: int = 0
    """Releases since the last fit; each has noise of its own."""


def first_state(
    risk: Risk, w: Array, residual: float, *, factors: bool, row_norm: float | None
) -> RemovalState:
    """Return the state after a fit.

    Args:
        risk: The training problem.
        w: Its minimiser ``(K, D)``.
        residual: Gradient residual norm there.
        factors: Whether to store factors for requests that do not read the rows.
        row_norm: A bound on the norms of rows that holds by assumption; measured if None.

    Returns:
        A state without requests.
    """
    mean, spread = gradient_moments(risk, w)
    largest = float(row_norms(risk.x).max(initial=0.0)) if row_norm is None else row_norm
    state = RemovalState(
        w=w,
        anchor=w,
        tilt=risk.tilt,
        removed_rows=np.zeros(len(risk.y), dtype=bool),
        new_labels={},
        dropped_columns=(),
        spectral=0.0,
        row_norm=largest,
        gradient_mean=mean,
        gradient_spread=spread,
        residual=residual,
        budget_spent=residual,
    )
    return with_anchor(state, risk, factors=factors)


def with_anchor(state: RemovalState, risk: Risk, *, factors: bool) -> RemovalState:
    """Return the state with its present weights as anchor; reads all rows, O(N P^2)."""
    if factors or len(risk.ridge) <= MOST_DENSE:
        gram = weighted_gram(risk.x, risk.weights)
        spectral = spectral_norm(gram)
    else:
        spectral = norm_bound(risk.x, risk.weights)
    stored = None
    if factors:
        hessian = risk.hessian(state.w)
        stored = Factors(
            inverse=inverse_of(hessian),
            hessian=hessian,
            gram=gram,
            shift=np.zeros_like(hessian),
            pull=np.zeros_like(state.w),
        )
    mean, spread = gradient_moments(risk, state.w)
    return replace(
        state,
        anchor=state.w,
        spectral=spectral,
        residual=state.budget_spent,
        factors=stored,
        gradient_mean=mean,
        gradient_spread=spread,
    )


def inverse_of(hessian: Array) -> Array:
    """Return the inverse of a positive definite matrix, symmetric."""
    found = cholesky_solve(hessian, np.eye(len(hessian)))
    out: Array = (found + found.T) / 2
    return out


def gradient_moments(risk: Risk, w: Array) -> tuple[Array, float]:
    """Return the mean gradient of the rows that count, and the mean squared distance from it."""
    slope = risk.loss.slope(risk.scores(w), risk.y) * risk.weights[:, None]
    count = max(int((risk.weights > 0).sum()), 1)
    mean: Array = np.asarray(risk.x.T @ slope).T / count
    squares = ((slope**2).sum(axis=1) * row_norms(risk.x) ** 2).sum() / count
    return mean, float(max(squares - (mean**2).sum(), 0.0))
