"""Token log-probabilities: what a causal model gives each label token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.token_rows import IGNORED


@dataclass(frozen=True)
class TokenScores:
    """What a model gives the T label tokens of one sequence, in order; nats, float32 or wider."""

    log_probs: Tensor
    """``log p(x_t | x_<t)`` ``(T,)``."""

    correct: Tensor
    """Whether the label is the most probable token ``(T,)``, bool."""

    mean: Tensor
    """Mean of ``log p(v | x_<t)`` over tokens v drawn from the model itself ``(T,)``."""

    deviation: Tensor
    """Standard deviation of the same ``(T,)``."""


def score_tokens(logits: Tensor, labels: Tensor) -> list[TokenScores]:
    """Return the scores of each sequence's label tokens, every token predicted from those before.

    Args:
        logits: ``(B, T, V)``, of positions 0 to T - 1.
        labels: Token ids ``(B, T)``; -100 where a token does not count. The first of a sequence has
            nothing before it and never counts.

    Returns:
        One entry a sequence; empty tensors where all labels are masked.

    Raises:
        InputError: If the shapes do not fit.
    """
    if logits.shape[:-1] != labels.shape or labels.dim() != 2:
        raise InputError(
            f"score_tokens: logits (B, T, V) need labels (B, T), got {tuple(logits.shape)} and"
            f" {tuple(labels.shape)}"
        )
    width = torch.float64 if logits.dtype == torch.float64 else torch.float32
    found = []
    for row, label in zip(logits[:, :-1], labels[:, 1:], strict=True):
        counts = label != IGNORED
        logs = row[counts].to(width).log_softmax(-1)
        target = label[counts]
        probs = logs.exp()
        mean = -torch.special.entr(probs).sum(-1)
        squares = probs * (logs - mean[:, None]).square()
        spread = torch.where(probs == 0, 0.0, squares).sum(-1)
        picked = logs.gather(1, target[:, None])[:, 0]
        found.append(TokenScores(picked, logs.argmax(-1) == target, mean, spread.sqrt()))
    return found


def mean_log_probs(scores: Sequence[TokenScores]) -> Tensor:
    """Return the mean log-probability of a token of each sequence ``(N,)``; nan without tokens."""
    return torch.stack([s.log_probs.mean() for s in scores])
