"""Removal algorithms: the weights after a request, and a bound on what is left of it.

``newton_removal`` reads the rows that stay; ``newton_step`` and ``infinitesimal_jackknife`` use
stored factors only, in O(P^2) a row.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unlearnkit.linear.losses import Array
from unlearnkit.linear.regularized_risk import Change, Risk, data_hessian, weighted_gram
from unlearnkit.linear.removal_state import Factors, RemovalState, inverse_of
from unlearnkit.linear.residual_bounds import step_bound, stored_bound
from unlearnkit.linear.risk_minimizer import newton_direction, proximal_step


def newton_removal(
    state: RemovalState, risk: Risk, change: Change, *, corrected: bool = False
) -> RemovalState:
    """Return the state after one Newton step on the data that stay.

    ``w - H^-1 G`` with the Hessian of the new data at the present weights (Guo et al., ICML 2020,
    arXiv:1911.03030, Algorithm 2; Warnecke et al., NDSS 2023, arXiv:2108.11577, second order). The
    residuals of a sequence of requests add up. Conjugate gradients go on until what they leave is
    a tenth of the bound; it is charged.

    Args:
        state: Before the request.
        risk: The data after the request.
        change: What differs.
        corrected: Step along the whole gradient of the new data, earlier residuals included, which
            are then no longer charged. At an exact minimum that is the same step.

    Returns:
        The state with new weights; its ``spent`` has grown by the bound of this step, or is that
        bound if corrected.
    """
    right = risk.gradient(state.w) if corrected else change.gradient(state.w)
    blocks, move, accuracy = risk.blocks(state.w), None, 1e-2
    while True:
        move = newton_direction(risk, state.w, -right, accuracy=accuracy, start=move)
        unsolved = float(np.linalg.norm(risk.product(blocks, move) + right))
        bound = step_bound(risk, state.spectral, state.w, move)
        if unsolved <= bound / 10 or accuracy < 1e-11:
            break
        accuracy /= 10
    earlier = 0.0 if corrected else state.budget_spent
    return replace(state, w=state.w + move, budget_spent=earlier + bound + unsolved)


def newton_step(state: RemovalState, risk: Risk, change: Change) -> RemovalState:
    """Return the state after the Newton step of all requests so far, from stored factors.

    ``anchor - H_K^-1 sum G`` (Sekhari et al., NeurIPS 2021, arXiv:2103.03279, Algorithm 1): the
    result of a sequence is that of one request for all. The inverse follows the rows by
    the Sherman-Morrison-Woodbury formula; one step of iterative refinement keeps it exact.

    Args:
        state: Before the request, with factors.
        risk: Supplies loss and penalty; its rows are not read.
        change: What differs.

    Returns:
        The new state; ``spent`` is the bound of the whole step from the anchor.
    """
    f = _factors(state)
    new, old = change.after.blocks(state.anchor), change.before.blocks(state.anchor)
    shift = _hessian_change(change, new, old)
    hessian = f.hessian + shift
    gone = not change.after.weights.any()
    inverse = _downdated(f.inverse, change.before.x, old) if gone else None
    if inverse is None:
        inverse = inverse_of(hessian) if shift.any() else f.inverse
    pull = f.pull - change.gradient(state.anchor)
    move = _solve(inverse, hessian, pull)
    unsolved = float(np.linalg.norm(hessian @ move.ravel() - pull.ravel()))
    gram = _gram(f, change)
    bound = state.residual + stored_bound(state, risk.loss, gram, move) + unsolved
    stored = Factors(inverse, hessian, gram, f.shift, pull)
    return replace(state, w=state.anchor + move, budget_spent=bound, factors=stored)


def infinitesimal_jackknife(state: RemovalState, risk: Risk, change: Change) -> RemovalState:
    """Return the state after the jackknife step of all requests so far.

    ``anchor - H_S^-1 sum G`` with the Hessian of all rows of the fit, factorised once (Suriyakumar
    and Wilson, NeurIPS 2022, arXiv:2209.12269). Gradients are those at the anchor, so that the
    order of requests does not matter and noise is never fed back. The removed rows' own curvature
    is what it leaves out: that part of the residual is computed, not bounded.

    Args:
        state: Before the request, with factors.
        risk: Supplies loss and penalty; its rows are not read.
        change: What differs.

    Returns:
        The new state; ``spent`` is the bound of the whole step from the anchor.
    """
    f = _factors(state)
    new, old = change.after.blocks(state.anchor), change.before.blocks(state.anchor)
    shift = f.shift + _hessian_change(change, new, old)
    pull = f.pull - change.gradient(state.anchor)
    move = _solve(f.inverse, f.hessian, pull)
    unsolved = (f.hessian + shift) @ move.ravel() - pull.ravel()
    gram = _gram(f, change)
    bound = stored_bound(state, risk.loss, gram, move) + float(np.linalg.norm(unsolved))
    stored = Factors(f.inverse, f.hessian, gram, shift, pull)
    return replace(
        state, w=state.anchor + move, budget_spent=state.residual + bound, factors=stored
    )


Step = Callable[[RemovalState, Risk, Change], RemovalState]
STEPS: dict[str, Step] = {
    "newton_removal": newton_removal,
    "newton_step": newton_step,
    "infinitesimal_jackknife": infinitesimal_jackknife,
}
"""Removal algorithms by name."""


def proximal_removal(state: RemovalState, risk: Risk, change: Change) -> RemovalState:
    """Return the state after a proximal Newton step on the data that stay.

    ``argmin_v 1/2 (v-w)^T H (v-w) + g^T (v-w) + sum lasso |v|`` with the whole gradient of the new
    data (Suriyakumar and Wilson, NeurIPS 2022, non-smooth case, with the Hessian of the new data).

    Args:
        state: Before the request.
        risk: The data after the request, with an absolute penalty.
        change: What differs; a change of nothing changes nothing.

    Returns:
        The state with new weights. There is no bound: ``spent`` is as it was.
    """
    if not change.gradient(state.w).any():
        return state
    target = proximal_step(risk.hessian(state.w), risk.gradient(state.w), state.w, risk.lasso)
    return replace(state, w=target)


def alignment(state: RemovalState, change: Change) -> float:
    """Return how much more the removed rows pull together than a random draw would.

    Norm of their summed gradient at the anchor over the root mean square of that norm for as many
    of the N rows drawn at random.
    """
    total, count = len(state.removed_rows), len(change.before.y)
    pulled = float(np.linalg.norm(change.before.data_gradient(state.anchor)))
    mean = count**2 * float((state.gradient_mean**2).sum())
    spread = count * max(total - count, 0) / max(total - 1, 1) * state.gradient_spread
    expected = float(np.sqrt(mean + spread))
    return pulled / expected if expected > 0 else 1.0


def _factors(state: RemovalState) -> Factors:
    assert state.factors is not None, "the estimator stores factors for this method"
    return state.factors


def _solve(inverse: Array, hessian: Array, right: Array) -> Array:
    flat = right.ravel()
    found = inverse @ flat
    found += inverse @ (flat - hessian @ found)
    return found.reshape(right.shape)


def _hessian_change(change: Change, new: Array, old: Array) -> Array:
    if change.after.x is change.before.x:
        return data_hessian(change.before.x, new - old)
    return data_hessian(change.after.x, new) - data_hessian(change.before.x, old)


def _gram(f: Factors, change: Change) -> Array:
    gone = weighted_gram(change.before.x, change.before.weights)
    return f.gram - gone + weighted_gram(change.after.x, change.after.weights)


def _downdated(inverse: Array, x: Array, blocks: Array) -> Array | None:
    """Return ``(H - sum_i blocks_i (x) x_i x_i^T)^-1``, or None where a new inverse is cheaper."""
    dense = x.toarray() if hasattr(x, "toarray") else x
    count, width = blocks.shape[1], dense.shape[1]
    if 4 * len(dense) * count > len(inverse):
        return None
    values, vectors = np.linalg.eigh(blocks)
    roots = vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]
    factor = np.einsum("nkj,nd->kdnj", roots, dense).reshape(count * width, -1)
    turned = inverse @ factor
    middle = np.eye(factor.shape[1]) - factor.T @ turned
    if np.linalg.eigvalsh(middle)[0] < 1e-8:
        return None
    found = inverse + turned @ np.linalg.solve(middle, turned.T)
    out: Array = (found + found.T) / 2
    return out
