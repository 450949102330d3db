"""Entropies and divergences of predicted distributions, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2 = math.log(2.0)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) of each row ``(B,)``, in nats, from log-probabilities ``(B, C)``.

    ``sum_c p_c (log p_c - log q_c)``; a class with p = 0 adds nothing, one with q = 0 < p makes it
    infinite.
    """
    p = log_p.exp()
    terms = p * (log_p - log_q)
    return torch.where(p > 0, terms, torch.zeros_like(terms)).sum(-1).clamp(min=0)


def js(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of each row ``(B,)``, in nats, at most log 2.

    ``KL(p || m) / 2 + KL(q || m) / 2`` with ``m = (p + q) / 2`` (Lin, IEEE Transactions on
    Information Theory 37, 1991), from log-probabilities ``(B, C)``.
    """
    log_m = torch.logaddexp(log_p, log_q) - LOG_2
    return ((kl(log_p, log_m) + kl(log_q, log_m)) / 2).clamp(max=LOG_2)


def entropy(log_p: Tensor) -> Tensor:
    """Return the entropy of each row ``(B,)``, in nats, from log-probabilities ``(B, C)``."""
    p = log_p.exp()
    return torch.where(p > 0, -p * log_p, torch.zeros_like(p)).sum(-1)


def modified_entropy(log_p: Tensor, y: Tensor) -> Tensor:
    """Return each row's modified entropy ``(B,)``, nats: small if surely right, large if wrong.

    ``-(1 - p_y) log p_y - sum over k != y of p_k log(1 - p_k)`` (Song and Mittal, USENIX Security
    2021, equation 6) from log-probabilities ``(B, C)`` and classes ``(B,)``. ``log(1 - p_k)`` is
    log1p(-p_k); for the row's top class, where that rounds, it is the logarithm of the sum of the
    other probabilities.
    """
    p = log_p.exp()
    top = log_p.argmax(-1, keepdim=True)
    rest = log_p.scatter(-1, top, -math.inf).logsumexp(-1, keepdim=True)
    log_other = torch.log1p(-p).scatter(-1, top, rest)
    terms = torch.where(p > 0, -p * log_other, torch.zeros_like(p))
    own = y[:, None]
    log_own = log_p.gather(-1, own)
    miss = log_other.gather(-1, own).exp()
    right = torch.where(miss > 0, -miss * log_own, torch.zeros_like(miss))
    return terms.scatter(-1, own, right).sum(-1)
