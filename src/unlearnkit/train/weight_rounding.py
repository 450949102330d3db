"""Weight rounding: a copy of a model whose matrices went through 8 or 4 bits and back."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from unlearnkit.train.relearning import trainable

BLOCK = 64
"""Weights that share a scale in 4 bits (QLoRA)."""

OFFSET = 0.9677083
"""Quantile of the outermost level of NF4 (QLoRA's code)."""


def rounded_copy(model: nn.Module, bits: Literal[4, 8]) -> nn.Module:
    """Return a copy whose linear layers have the weights that a quantised model would compute with.

    Embeddings, and an output layer that shares their memory, norms and biases stay as they are, as
    in bitsandbytes. Simulated in floating point: no kernel of low precision runs.

    Args:
        model: Read only.
        bits: 8: each output channel rounded to 127 steps either way of its largest weight
            (absmax). 4: NF4, each 64 weights in a row to the nearest of 16 levels of a normal
            distribution, times their largest weight (Dettmers et al., NeurIPS 2023,
            arXiv:2305.14314); scales are not rounded again.

    Returns:
        The copy, at least in float32.
    """
    twin = trainable(model)
    held = {id(m.weight) for m in twin.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for module in twin.modules():
            transposed = type(module).__name__ == "Conv1D"
            if not (isinstance(module, nn.Linear) or transposed) or id(module.weight) in held:
                continue
            w = module.weight
            assert isinstance(w, Tensor)
            matrix = w.mT if transposed else w
            new = in_8_bits(matrix) if bits == 8 else in_4_bits(matrix)
            w.copy_(new.mT if transposed else new)
    return twin


def in_8_bits(w: Tensor) -> Tensor:
    """Return a matrix ``(out, in)`` after 8 bits: ``round(127 w / a) a / 127``, a its row's absmax.

    A row of zeros stays.
    """
    scale = w.abs().amax(1, keepdim=True) / 127
    return torch.where(scale > 0, (w / scale).round() * scale, w)


def in_4_bits(w: Tensor) -> Tensor:
    """Return a matrix ``(out, in)`` after NF4: blocks of 64 weights, row by row."""
    flat = w.reshape(-1)
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True)
    levels = nf4_levels().to(w)
    borders = (levels[1:] + levels[:-1]) / 2
    shares = torch.where(scale > 0, blocks / scale, 0.0)
    found = levels[torch.bucketize(shares.contiguous(), borders)] * scale
    return found.reshape(-1)[: len(flat)].view_as(w)


@cache
def nf4_levels() -> Tensor:
    """Return the 16 levels of NF4, from -1 to 1: quantiles of a normal distribution, 0 among them.

    Eight above zero and seven below it, each side equally spaced in probability.
    """
    above, below = (torch.linspace(OFFSET, 0.5, n, dtype=torch.float64)[:-1] for n in (9, 8))
    levels = torch.cat([-torch.special.ndtri(below), torch.zeros(1), torch.special.ndtri(above)])
    levels = levels.double().sort().values
    return levels / levels.max()
