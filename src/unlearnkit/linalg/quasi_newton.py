"""Quasi-Newton product: a Hessian, known from a few differences of gradients, times a vector."""

from __future__ import annotations

import torch
from torch import Tensor


def quasi_newton_product(steps: Tensor, changes: Tensor, v: Tensor) -> Tensor:
    """Return ``B v``, with the BFGS matrix B of some pairs in compact form.

    ``B = sigma I - [Y, sigma S] M^-1 [Y, sigma S]^T`` with ``M = [[-D, L^T], [L, sigma S^T S]]``,
    where D is the diagonal of ``S^T Y`` and L its part below (Byrd, Nocedal and Schnabel, Math.
    Programming 63, 1994, theorem 2.3); ``sigma = s^T y / s^T s`` of the latest pair. ``B s = y``
    for the latest pair. Where M is singular, its pseudo-inverse is used.

    Args:
        steps: S, differences of weights ``(P, k)``, the latest last.
        changes: Y, differences of gradients ``(P, k)``; with the sign turned, so is B.
        v: ``(P,)``.

    Returns:
        The product ``(P,)``, computed in float64, in the type of ``v``.
    """
    s, y, at = steps.double(), changes.double(), v.double()
    sigma = (s[:, -1] @ y[:, -1]) / (s[:, -1] @ s[:, -1])
    cross = s.T @ y
    below = cross.tril(-1)
    middle = torch.cat(
        [
            torch.cat([-cross.diag().diag(), below.T], 1),
            torch.cat([below, sigma * (s.T @ s)], 1),
        ]
    )
    right = torch.cat([y.T @ at, sigma * (s.T @ at)])
    p = torch.linalg.pinv(middle) @ right
    k = s.shape[1]
    product: Tensor = sigma * at - y @ p[:k] - sigma * (s @ p[k:])
    return product.to(v.dtype)
