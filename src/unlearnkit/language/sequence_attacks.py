"""Membership attacks on sequences: one score each, larger for text that looks trained on."""

from __future__ import annotations

import zlib as deflate
from collections.abc import Sequence

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.language.token_scores import TokenScores, mean_log_probs


def loss_score(scores: Sequence[TokenScores]) -> Tensor:
    """Return minus the loss of each sequence ``(N,)``: its mean token log-probability, in nats.

    Yeom et al., CSF 2018, arXiv:1709.01604.
    """
    return mean_log_probs(scores)


def zlib_score(scores: Sequence[TokenScores], texts: Sequence[str]) -> Tensor:
    """Return minus the loss over the bytes of the text under zlib ``(N,)``, in nats a byte.

    Carlini et al., USENIX Security 2021, arXiv:2012.07805.

    Raises:
        InputError: If there is not one text for each sequence.
    """
    if len(scores) != len(texts):
        raise InputError(
            f"zlib_score: {len(scores)} sequences need as many texts, got {len(texts)}"
        )
    size = [len(deflate.compress(text.encode("utf-8"))) for text in texts]
    losses = mean_log_probs(scores)
    return losses / torch.tensor(size, dtype=losses.dtype, device=losses.device)


def reference_score(scores: Sequence[TokenScores], reference: Sequence[TokenScores]) -> Tensor:
    """Return the loss of a reference model minus that of the model ``(N,)``, in nats.

    The reference has not seen the text. Carlini et al., USENIX Security 2021, arXiv:2012.07805.
    """
    return mean_log_probs(scores) - mean_log_probs(reference)


def min_k_score(scores: Sequence[TokenScores], share: float = 0.4) -> Tensor:
    """Return the mean log-probability of each sequence's least probable tokens ``(N,)``, in nats.

    Shi et al., ICLR 2024, arXiv:2310.16789, equation 1: Min-K%.

    Args:
        scores: N sequences.
        share: Share of the tokens, rounded down, one at least; 1 is the loss attack.

    Returns:
        The scores; nan for a sequence without tokens.
    """
    return torch.stack([_lowest(s.log_probs, share) for s in scores])


def min_k_plus_plus_score(scores: Sequence[TokenScores], share: float = 0.4) -> Tensor:
    """Return the mean of each sequence's lowest standardised log-probabilities ``(N,)``.

    ``(log p(x_t) - mean_t) / deviation_t`` with mean and deviation over tokens drawn from the
    model. Zhang et al., ICLR 2025, arXiv:2404.02936, equation 3. A position without spread (all
    probability on one token, or the same on all) standardises to 0.

    Args:
        scores: N sequences.
        share: Share of the tokens, rounded down, one at least.

    Returns:
        The scores; nan for a sequence without tokens.
    """
    found = []
    for s in scores:
        rounding = 16 * torch.finfo(s.mean.dtype).eps * s.mean.abs()
        level = (s.log_probs - s.mean) / s.deviation
        found.append(_lowest(torch.where(s.deviation <= rounding, 0.0, level), share))
    return torch.stack(found)


def _lowest(values: Tensor, share: float) -> Tensor:
    if not 0 < share <= 1:
        raise InputError(f"min_k: share must be above 0 and at most 1, got {share!r}")
    count = max(1, int(len(values) * share))
    return values.sort().values[:count].mean()


def exposure(canary: Tensor, others: Tensor) -> Tensor:
    """Return the exposure of canaries ``(N,)``, in bits: ``log2 |R| - log2 rank``.

    R is the canary and the other candidates; the rank is 1 for the least log-perplexity, ties count
    half. Between 0 and ``log2 |R|``; a canary that was never seen has more than b bits with chance
    ``2^-b``. Carlini et al., USENIX Security 2019, arXiv:1802.08232, definition 4.

    Args:
        canary: Log-perplexities ``(N,)`` of the canaries, in any unit.
        others: Log-perplexities of candidates that were not inserted, ``(M,)`` for all canaries or
            ``(N, M)``.

    Returns:
        Float64.
    """
    many = others.double().expand(len(canary), -1)
    mine = canary.double()[:, None]
    rank = 1 + (many < mine).double().sum(1) + (many == mine).double().sum(1) / 2
    return torch.log2((1 + many.shape[1]) / rank)
