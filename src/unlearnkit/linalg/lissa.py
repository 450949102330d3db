"""LiSSA: a damped inverse of curvature times a vector, by a recursion over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.linalg.conjugate_gradient import LinearSolution, Product, check_damping


def lissa(
    products: Sequence[Product],
    right: Mapping[str, Tensor],
    *,
    damping: float,
    scale: float,
    iterations: int,
    tolerance: float = 1e-3,
) -> LinearSolution:
    """Return about ``(A + damping I)^-1 b``, where ``A`` is the mean of several matrices.

    ``u <- b + (1 - damping / scale) u - A_t u / scale``, from ``u = b``; the result is ``u /
    scale`` (Agarwal, Bullins and Hazan, JMLR 2017; Koh and Liang, ICML 2017). Published code calls
    ``damping / scale`` the damping: what it adds to the matrix is ``scale`` times that.

    Args:
        products: ``v`` to ``A_t v`` for each batch; used in turn, again and again.
        right: ``b``, tensors by name.
        damping: Added to the diagonal.
        scale: Above half of the largest eigenvalue of ``A_t + damping I``, or the recursion
            diverges.
        iterations: Most steps; each is one product of one batch.
        tolerance: Stops once a step moves ``u`` by less than this share of its length.

    Returns:
        The solution. Its residual is measured with one product of each batch.

    Raises:
        InputError: If the recursion diverges, or scale is not above 0.
    """
    check_damping(damping)
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"lissa: scale must be a finite number above 0, got {scale}")
    if not products:
        raise InputError("lissa: there are no batches; give at least one")
    u = {n: t.clone() for n, t in right.items()}
    size = _length(right)
    step = 0
    while step < iterations and size:
        bent = products[step % len(products)](u)
        fresh = {n: right[n] + (1 - damping / scale) * t - bent[n] / scale for n, t in u.items()}
        step += 1
        moved = _length({n: fresh[n] - t for n, t in u.items()})
        u = fresh
        if not math.isfinite(moved) or moved > _BLOWN * size:
            raise InputError(
                f"lissa: diverged after {step} steps at scale {scale:.3g}; raise the scale above"
                " half of the largest eigenvalue, or use conjugate gradients"
            )
        if moved <= tolerance * damping / scale * _length(u):
            break
    x = {n: t / scale for n, t in u.items()}
    residual = _residual(products, x, right, damping, size)
    return LinearSolution(x, residual, step, converged=residual <= 2 * tolerance)


_BLOWN = 1e6
"""Length of a step, in lengths of the right side, beyond which the recursion has diverged."""


def largest_eigenvalue(
    product: Product, like: Mapping[str, Tensor], draw: Callable[[Tensor], Tensor], *, steps: int
) -> float:
    """Return about the largest eigenvalue of a matrix without negative ones, by power iteration.

    Args:
        product: ``v`` to ``A v``.
        like: Tensors of a vector's shapes, by name.
        draw: From a tensor to a random one of its shape.
        steps: Products; the value is a lower bound that grows with them.

    Returns:
        The Rayleigh quotient of the last vector; 0 for a zero matrix.
    """
    v = {n: draw(t) for n, t in like.items()}
    value = 0.0
    for _ in range(steps):
        size = _length(v)
        if not size:
            return 0.0
        v = {n: t / size for n, t in v.items()}
        bent = product(v)
        value = sum(float((v[n].double() * bent[n].double()).sum()) for n in v)
        v = bent
    return value


def _residual(
    products: Sequence[Product],
    x: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    damping: float,
    size: float,
) -> float:
    if not size:
        return 0.0
    gap = {n: right[n] - damping * t for n, t in x.items()}
    for product in products:
        for n, t in product(dict(x)).items():
            gap[n] = gap[n] - t / len(products)
    return _length(gap) / size


def _length(v: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in v.values()))
