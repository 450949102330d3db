"""Minimiser of a regularised risk: weights, and how exact they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from unlearnkit.core.errors import InputError
from unlearnkit.linear.design_matrix import is_sparse
from unlearnkit.linear.losses import Array
from unlearnkit.linear.regularized_risk import MOST_DENSE, Risk

MOST_SPARSE = 512
"""Most parameters for which a Hessian of sparse rows is formed at each step."""

POLISH = 12
"""Most Newton steps after the trust region, which stops where the value can no longer tell."""

SINGULAR = (
    "the Hessian is singular, so that the minimum is not unique; set alpha above 0, or drop"
    " columns that others determine"
)


@dataclass(frozen=True)
class Minimum:
    """Weights at a minimum."""

    w: Array
    """Weights ``(K, D)``."""

    residual: float
    """Gradient residual norm; with an absolute penalty, of the smallest subgradient."""

    iterations: int
    """Iterations of the solver, at least 1."""


def minimize_risk(risk: Risk, start: Array, *, steps: int) -> Minimum:
    """Return the minimum that a trust-region Newton method reaches from some weights.

    SciPy's ``trust-exact`` with a dense Hessian, ``trust-ncg`` with products where that would be
    too large; then Newton steps for as long as they halve the gradient, because near the minimum a
    value in floating point can no longer tell better from worse. With an absolute penalty a
    proximal Newton method takes over.

    Args:
        risk: What is minimised.
        start: First weights ``(K, D)``.
        steps: Most iterations.

    Returns:
        The weights with their gradient residual norm.
    """
    if risk.lasso.any():
        return _proximal_newton(risk, start, steps)
    run: Any = minimize  # its types know no dictionary of options
    with np.errstate(over="ignore"):  # a step too far has an infinite value, and is taken back
        done = run(
            lambda v: risk.value(v.reshape(start.shape)),
            start.ravel(),
            jac=lambda v: risk.gradient(v.reshape(start.shape)).ravel(),
            options={"gtol": 1e-6, "maxiter": steps},
            **_second_order(risk, start),
        )
    w = done.x.reshape(start.shape)
    gradient, taken = risk.gradient(w), 0
    while taken < POLISH and gradient.any():
        better = w - newton_direction(risk, w, gradient, accuracy=1e-3)
        there = risk.gradient(better)
        if not np.linalg.norm(there) < 0.5 * np.linalg.norm(gradient):
            break
        w, gradient, taken = better, there, taken + 1
    return Minimum(w, float(np.linalg.norm(gradient)), max(1, done.nit + taken))


def _second_order(risk: Risk, start: Array) -> dict[str, Any]:
    if solves_dense(risk):
        return {"method": "trust-exact", "hess": lambda v: risk.hessian(v.reshape(start.shape))}
    last: list[Any] = [np.full(start.size, np.nan), None]

    def product(v: Array, direction: Array) -> Array:
        if not np.array_equal(v, last[0]):
            last[:] = v.copy(), risk.blocks(v.reshape(start.shape))
        return risk.product(last[1], direction.reshape(start.shape)).ravel()

    return {"method": "trust-ncg", "hessp": product}


def solves_dense(risk: Risk) -> bool:
    """Return whether a Hessian is formed for each step: not for many columns of sparse rows."""
    return risk.size <= (MOST_SPARSE if is_sparse(risk.x) else MOST_DENSE)


def newton_direction(
    risk: Risk, w: Array, right: Array, *, accuracy: float, start: Array | None = None
) -> Array:
    """Return ``H(w)^-1 right``, ``(K, D)``: by Cholesky factors, or by conjugate gradients.

    Args:
        risk: Supplies the Hessian.
        w: Weights ``(K, D)``.
        right: Right-hand side ``(K, D)``.
        accuracy: Residual at which conjugate gradients stop, as a share of the right-hand side.
        start: First solution of conjugate gradients; that of the diagonal alone if None, which is
            exact for a column without entries.

    Returns:
        The solution.

    Raises:
        InputError: If the Hessian is singular.
    """
    if solves_dense(risk):
        return cholesky_solve(risk.hessian(w), right.ravel()).reshape(w.shape)
    blocks = risk.blocks(w)
    diagonal = risk.diagonal(blocks).ravel()
    if not (diagonal > 0).all():
        raise InputError(SINGULAR)
    shape = (risk.size, risk.size)
    operator = LinearOperator(
        shape, matvec=lambda v: risk.product(blocks, v.reshape(w.shape)).ravel(), dtype=float
    )
    scaling = LinearOperator(shape, matvec=lambda v: v.ravel() / diagonal, dtype=float)
    first = right.ravel() / diagonal if start is None else start.ravel()
    found, _ = cg(operator, right.ravel(), x0=first, rtol=accuracy, maxiter=5000, M=scaling)
    out: Array = found.reshape(w.shape)
    return out


def cholesky_solve(matrix: Array, right: Array) -> Array:
    """Return ``matrix^-1 right``, with one step of iterative refinement.

    Raises:
        InputError: If the matrix is not positive definite to working precision.
    """
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False)
    except LinAlgError:
        raise InputError(SINGULAR) from None
    pivots = np.diag(factor[0]) ** 2
    if not pivots.min() > 8 * len(matrix) * np.finfo(float).eps * np.diag(matrix).max():
        raise InputError(SINGULAR)
    found = cho_solve(factor, right, check_finite=False)
    out: Array = found + cho_solve(factor, right - matrix @ found, check_finite=False)
    return out


def _proximal_newton(risk: Risk, start: Array, steps: int) -> Minimum:
    """Minimise with an absolute penalty: quadratic models, and steps that lower the objective."""
    w = start
    residual = subgradient_norm(risk, w, risk.gradient(w))
    for step in range(steps):
        gradient, hessian = risk.gradient(w), risk.hessian(w)
        target = proximal_step(hessian, gradient, w, risk.lasso)
        move, length = target - w, 1.0
        before = risk.value(w) + (abs(w) @ risk.lasso).sum()
        drop = (gradient * move).sum() + ((abs(target) - abs(w)) @ risk.lasso).sum()
        while length > 1e-8:
            there = w + length * move
            value = risk.value(there) + (abs(there) @ risk.lasso).sum()
            close = subgradient_norm(risk, there, risk.gradient(there)) < 0.5 * residual
            if value <= before + 1e-4 * length * drop or close:
                break
            length *= 0.5
        found = subgradient_norm(risk, there, risk.gradient(there))
        if residual <= 1e-9 and found >= 0.5 * residual:
            return Minimum(w, residual, step + 1)
        w, residual = there, found
        if residual == 0 or length <= 1e-8:
            break
    return Minimum(w, residual, step + 1)


def subgradient_norm(risk: Risk, w: Array, gradient: Array) -> float:
    """Return the norm of the smallest subgradient of the whole objective at some weights.

    Args:
        risk: Supplies the absolute penalty of each column.
        w: Weights ``(K, D)``.
        gradient: Gradient of the smooth part there ``(K, D)``.

    Returns:
        The norm: 0 exactly at a minimum.
    """
    at_zero = np.maximum(abs(gradient) - risk.lasso, 0)
    elsewhere = gradient + np.sign(w) * risk.lasso
    return float(np.linalg.norm(np.where(w == 0, at_zero, elsewhere)))


def proximal_step(hessian: Array, gradient: Array, w: Array, lasso: Array) -> Array:
    """Return ``argmin_v 1/2 (v-w)^T H (v-w) + g^T (v-w) + sum lasso |v|``.

    FISTA with restart, then the exact solution on the support and signs that it found.

    Args:
        hessian: Positive definite ``(K D, K D)``.
        gradient: Gradient of the smooth part at ``w``, ``(K, D)``.
        w: Weights ``(K, D)``.
        lasso: Absolute penalty of each column ``(D,)``.

    Returns:
        The minimiser ``(K, D)``, with exact zeros.
    """
    limit = np.tile(lasso, len(w))
    origin, slope = w.ravel(), gradient.ravel()
    step = 1 / np.linalg.norm(hessian, 2)
    v, ahead, pace = origin.copy(), origin.copy(), 1.0
    for _ in range(5000):
        raw = ahead - step * (slope + hessian @ (ahead - origin))
        there = np.sign(raw) * np.maximum(abs(raw) - step * limit, 0)
        turned = (ahead - there) @ (there - v) > 0
        next_pace = 1.0 if turned else (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = there + (0.0 if turned else (pace - 1) / next_pace) * (there - v)
        change = np.linalg.norm(there - v)
        v, pace = there, next_pace
        if change <= 1e-13 * (1 + np.linalg.norm(v)):
            break
    active = (v != 0) | (limit == 0)
    if active.any():
        exact = np.zeros_like(v)
        right = -(slope - hessian @ origin + np.sign(v) * limit)[active]
        exact[active] = cholesky_solve(hessian[np.ix_(active, active)], right)
        pull = slope + hessian @ (exact - origin)
        same = (np.sign(exact) == np.sign(v))[active & (limit > 0)].all()
        if same and (abs(pull[~active]) <= limit[~active] * (1 + 1e-9)).all():
            v = exact
    out: Array = v.reshape(w.shape)
    return out
