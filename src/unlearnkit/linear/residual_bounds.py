"""Residual bounds: how far a Newton step can leave the gradient from zero."""

import numpy as np

from unlearnkit.linear.design_matrix import row_norms
from unlearnkit.linear.losses import Array, Loss
from unlearnkit.linear.regularized_risk import Change, Risk
from unlearnkit.linear.removal_state import RemovalState


def step_bound(risk: Risk, spectral: float, w: Array, move: Array) -> float:
    """Return a bound on ``||grad F(w + move) - grad F(w) - H(w) move||`` that reads the rows.

    ``||diag(sqrt s) X||_2 (sum_i s_i (kappa_i / 2)^2 ||move x_i||^4)^(1/2)``, kappa_i the bound on
    the third derivative along the way. It is the data-dependent bound of Guo et al. (ICML 2020,
    Corollary 1) with the integral remainder, and with each row's own score change.

    Args:
        risk: The data that stay.
        spectral: Upper bound on the spectral norm of ``diag(sqrt s) X``.
        w: Weights before the step ``(K, D)``.
        move: The step ``(K, D)``.

    Returns:
        The bound, in the unit of the gradient.
    """
    before, change = risk.scores(w), risk.scores(move)
    radius = np.maximum(np.linalg.norm(before, axis=1), np.linalg.norm(before + change, axis=1))
    remainder = 0.5 * risk.loss.third_bound(radius) * (change**2).sum(axis=1)
    return float(spectral * np.sqrt(risk.weights @ remainder**2))


def stored_bound(state: RemovalState, loss: Loss, gram: Array, move: Array) -> float:
    """Return a bound on the same remainder from stored numbers alone, in O(P D).

    ``(kappa / 2) ||X||_2 R ||move|| (tr move X^T diag(s) X move^T)^(1/2)``, R the largest norm of a
    row (Guo et al., Corollary 1).

    Args:
        state: Norms and the anchor.
        loss: Bounds the third derivative for scores up to ``R (||anchor|| + ||move||)``.
        gram: ``X^T diag(s) X`` of the data that stay ``(D, D)``.
        move: The step from the anchor ``(K, D)``.

    Returns:
        The bound, in the unit of the gradient.
    """
    length = float(np.linalg.norm(move))
    radius = state.row_norm * (float(np.linalg.norm(state.anchor)) + length)
    kappa = float(loss.third_bound(np.array([radius]))[0])
    if kappa == 0:
        return 0.0
    change = float(np.sqrt(max(np.einsum("kd,de,ke->", move, gram, move), 0.0)))
    return 0.5 * kappa * state.spectral * state.row_norm * length * change


def uniform_bound(risk: Risk, change: Change, spectral: float, row_norm: float) -> float:
    """Return a bound on the remainder of a Newton step that holds whatever the weights are.

    ``(kappa / 2) ||X||_2^2 R (sum_i s_i L ||x_i|| / alpha)^2`` over the affected rows, before and
    after. It reads no weights, so that it does not depend on the noise of objective perturbation.

    Args:
        risk: Supplies loss and penalty.
        change: The affected rows.
        spectral: Upper bound on the spectral norm of ``diag(sqrt s) X``.
        row_norm: Largest norm of a row, R.

    Returns:
        The bound, in the unit of the gradient; infinite where the loss has no bounded slope.
    """
    pull = risk.loss.slope_bound() * sum(
        float(part.weights @ row_norms(part.x)) for part in (change.before, change.after)
    )
    kappa = float(risk.loss.third_bound(np.array([np.inf]))[0])
    return 0.5 * kappa * spectral**2 * row_norm * (pull / float(risk.ridge.min())) ** 2


def worst_case_bound(
    loss: Loss, *, rows: int, removed: int, alpha: float, slope: float, row_norm: float = 1.0
) -> float:
    """Return the residual bound of one Newton step that holds for any data, before any is seen.

    ``(kappa / 2) (n - m) R^3 (m L R / alpha)^2`` for losses whose third derivative is bounded.

    Args:
        loss: Its third derivative must have a bound that holds everywhere.
        rows: Number of rows n.
        removed: Rows removed at once, m.
        alpha: Squared penalty.
        slope: Largest first derivative of the loss, L.
        row_norm: Largest norm of a row, R.

    Returns:
        The bound, in the unit of the gradient.
    """
    kappa = float(loss.third_bound(np.array([np.inf]))[0])
    move = removed * slope * row_norm / alpha
    return 0.5 * kappa * (rows - removed) * row_norm**3 * move**2
