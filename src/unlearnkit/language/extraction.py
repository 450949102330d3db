"""Extraction: how much of a text a model continues word for word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearnkit.language.token_scores import TokenScores


def exact_memorization(scores: Sequence[TokenScores]) -> Tensor:
    """Return the share of each sequence's tokens that are the model's first choice ``(N,)``.

    Teacher forced. Tirumala et al., NeurIPS 2022, arXiv:2205.10770. Nan without tokens.
    """
    return torch.stack([s.correct.double().mean() for s in scores])


def extraction_strength(scores: Sequence[TokenScores]) -> Tensor:
    """Return ``1 - k / L`` of each sequence ``(N,)``.

    k is the length of the shortest prefix after which every one of the L label tokens is the
    model's first choice: 1 where all are right, 0 where the last is wrong. Carlini et al., USENIX
    Security 2021; Wang et al., ICLR 2025, arXiv:2409.18025. Nan without tokens.
    """
    return torch.stack([s.correct.double().flip(0).cumprod(0).mean() for s in scores])
