"""Self-influence: effect of a row on its own loss, in the last layer.

Feldman and Zhang, NeurIPS 2020, arXiv:2008.03703, call the influence of a row on itself its
memorisation; Koh and Liang, ICML 2017, arXiv:1703.04730, estimate it from one trained model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

DAMPING = 1e-4
"""Share of the mean curvature that is added to each direction's."""

BLOCK = 4096
"""Classes that are looked at at once where there are more than rows."""


def self_influence(
    features: Tensor, log_p: Tensor, y: Tensor, *, damping: float = DAMPING
) -> Tensor:
    """Return by how much, to first order, each row's loss rises when it alone is left out.

    ``g' H^-1 g / N`` with the row's gradient ``g = (p - e_y) (phi, 1)`` by the last layer, and the
    curvature of the mean loss there in the two factors of K-FAC (Martens and Grosse, ICML 2015,
    arXiv:1503.05671): ``H = A (x) B`` with ``A = mean (phi, 1) (phi, 1)'`` and ``B = mean (diag(p)
    - p p')``. TRAK's score of a row for itself is of this kind. On digits it has a rank correlation
    of 0.46 with the leave-out estimate (64 models), of at most 0.47; 0.71 of the tenth that it
    ranks highest are among the tenth that the estimate does. From 1e-8 to 1 the damping makes no
    difference there.

    Args:
        features: Last-layer inputs ``(N, D)`` of the training rows.
        log_p: Their log-probabilities ``(N, C)``.
        y: Their classes ``(N,)``.
        damping: Share of the mean eigenvalue of H that is added, its root to each factor's.

    Returns:
        Nats ``(N,)``, 0 or more; the same for a layer times a constant on features over it.
    """
    phi = torch.cat([features.double(), torch.ones(len(y), 1, dtype=torch.float64)], 1)
    share = damping**0.5
    inner = _inverse_square(phi, phi.T @ phi / len(y), share)
    if log_p.shape[1] > len(y):
        return inner * _of_many_classes(log_p, y, share) / len(y)
    p = log_p.double().exp()
    residual = p - functional.one_hot(y, p.shape[1])
    outputs = p.mean(0).diag() - p.T @ p / len(y)
    return inner * _inverse_square(residual, outputs, share) / len(y)


def _of_many_classes(log_p: Tensor, y: Tensor, share: float) -> Tensor:
    """Return ``r' (B + share mean(diag B) 1)^-1 r`` of ``r = p - e_y``, without a C x C matrix.

    ``B = diag(mean p) - P' P / N`` is a diagonal minus a matrix of rank N, which Woodbury's
    identity inverts by one of N x N.

    Args:
        log_p: Log-probabilities ``(N, C)``, with more classes than rows.
        y: Classes ``(N,)``.
        share: Share of the mean of the diagonal that is added to it.

    Returns:
        One value a row ``(N,)``; 0 where nothing bends.
    """
    n, classes = log_p.shape
    parts = [slice(i, i + BLOCK) for i in range(0, classes, BLOCK)]
    mean = torch.empty(classes, dtype=torch.float64)
    bend = 0.0
    for part in parts:
        p = log_p[:, part].double().exp()
        mean[part] = p.mean(0)
        bend += float((mean[part] - p.square().mean(0)).sum()) / classes
    if not bend > 0:
        return torch.zeros(n, dtype=torch.float64)
    diagonal = mean + share * bend
    inner = torch.zeros(n, n, dtype=torch.float64)  # P D^-1 P'
    for part in parts:
        p = log_p[:, part].double().exp()
        inner += (p / diagonal[part]) @ p.T
    own, at = log_p.gather(1, y[:, None])[:, 0].double().exp(), diagonal[y]
    across = inner - log_p[:, y].double().exp() / at  # P D^-1 R'
    plain = inner.diagonal() - 2 * own / at + 1 / at
    root = torch.linalg.cholesky(n * torch.eye(n, dtype=torch.float64) - inner)
    found: Tensor = torch.linalg.solve_triangular(root, across, upper=False).square().sum(0)
    return plain + found


def _inverse_square(rows: Tensor, curvature: Tensor, share: float) -> Tensor:
    """Return ``x' (M + share mean(diag M) 1)^-1 x`` of each row; 0 where nothing bends."""
    mean = curvature.diagonal().mean()
    if not mean > 0:
        return torch.zeros(len(rows), dtype=torch.float64)
    damped = curvature + share * mean * torch.eye(len(curvature), dtype=torch.float64)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(damped), rows.T, upper=False)
    found: Tensor = half.square().sum(0)
    return found
