"""Least disagree metric: the smallest model change that flips a row.

Cho et al., ICLR 2024, arXiv:2401.09787. Small: the row lies at the boundary. Large: deep inside its
class, as redundant rows do, and rows that were learned by heart.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = torch.logspace(-4, 1, 51, dtype=torch.float64)
"""Deviations of the noise, in root mean squares of the last layer's weights."""


def least_disagree(
    pool: Tensor,
    sample: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rng: torch.Generator,
    *,
    draws: int = 10,
    scales: Tensor = SCALES,
) -> Tensor:
    """Return of each row the least share of a sample that changes its answer when the row does.

    Gaussian noise is put on the last layer; ``L_i = min rho`` over the noisy layers that answer row
    i otherwise, rho being the share of the sample that they answer otherwise. Noise comes in pairs
    of opposite sign. Published code draws until ten draws in a row bring nothing lower; here their
    number is fixed, so that two models cost the same and share their noise. Its noise is absolute;
    here it is in units of the layer's own size, so that a layer times a constant scores the same.

    Args:
        pool: Last-layer inputs ``(n, D)`` of the rows to be scored.
        sample: The same ``(M, D)`` of rows that stand for all inputs.
        weight: Of the last layer ``(C, D)``; one logit counts as the second of two classes.
        bias: Of the last layer ``(C,)``.
        rng: Draws the noise, on the CPU.
        draws: Pairs of noisy layers at each scale; each costs four products with the features.
        scales: Deviations of the noise, in the layer's root mean square. The published grid ends at
            1 in the unit of the weights; rows deep inside their class need more.

    Returns:
        From 0 to 1 ``(n,)``; 1 where nothing changed the answer.
    """
    layer = _matrix(weight) if bias is None else torch.cat([_matrix(weight), _matrix(bias)], 1)
    rows = torch.cat([_matrix(pool), _matrix(sample)])
    if bias is not None:
        rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    size = layer.square().mean().sqrt()
    before = _answers(rows, layer)
    least = torch.ones(len(pool), dtype=torch.float64)
    for _ in range(draws):
        for scale in scales.tolist():
            noise = torch.randn(layer.shape, generator=rng, dtype=torch.float64)
            for signed in (scale, -scale):
                moved = _answers(rows, layer + signed * size * noise) != before
                share = moved[len(pool) :].double().mean()
                least = torch.where(moved[: len(pool)], least.clamp(max=share), least)
    return least


def _answers(rows: Tensor, layer: Tensor) -> Tensor:
    out = rows @ layer.T
    return out.argmax(1) if out.shape[1] > 1 else (out[:, 0] > 0).long()


def _matrix(t: Tensor) -> Tensor:
    return t.detach().double().cpu().reshape(len(t), -1)
