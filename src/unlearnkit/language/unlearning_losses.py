"""Unlearning losses of language models: pure functions of logits and labels.

Shapes: logits ``(B, T, V)``, of the label at the same place; labels ``(B, T)``; mask ``(B, T)``,
true where a label counts; reference log-probabilities ``(B,)`` of whole sequences, or logits
``(B, T, V)``. All are in nats. What stands under the mask changes nothing.

Names and constants are those of OpenUnlearning (d3d7cf9) where no paper is named.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def token_nll(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return ``-log p`` of each label ``(B, T)``; 0 under the mask."""
    label = torch.where(mask, labels, 0)
    own = logits.gather(-1, label[..., None])[..., 0]
    return torch.where(mask, logits.logsumexp(-1) - own, 0.0)


def sequence_nll(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor,
    reduction: Literal["seq_sum", "seq_mean", "token"],
) -> Tensor:
    """Return ``-log p`` of sequences: their sum or mean over labels ``(B,)``, or one number.

    Args:
        logits: ``(B, T, V)``.
        labels: ``(B, T)``.
        mask: Where labels count.
        reduction: ``seq_sum`` and ``seq_mean`` give one number a sequence ``(B,)``; ``token`` the
            mean over all labels of the batch.

    Returns:
        Nats.
    """
    nll = token_nll(logits, labels, mask)
    if reduction == "token":
        return token_mean(nll, mask)
    total = nll.sum(-1)
    return total if reduction == "seq_sum" else total / mask.sum(-1)


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values ``(B, T)`` over the places of the mask."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def gradient_ascent(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return minus the mean loss of the labels: GA, and the forget term of GradDiff and KL."""
    return -sequence_nll(logits, labels, mask, "token")


def kl_to_reference(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """Return ``KL(p_ref || p)`` over the vocabulary, mean over the places of the mask."""
    ours, theirs = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    return token_mean((theirs.exp() * (theirs - ours)).sum(-1), mask)


def npo(
    logits: Tensor, labels: Tensor, mask: Tensor, reference_log_probs: Tensor, *, beta: float = 0.1
) -> Tensor:
    """Return ``-(2/beta) mean log sigmoid(beta (NLL - NLL_ref))`` over sequence sums.

    Zhang et al., COLM 2024, arXiv:2404.05868, equation 3. As beta falls to 0 it becomes GA up to a
    constant; its gradient is GA's times ``2 P^beta / (P^beta + P_ref^beta)``.
    """
    ratio = sequence_nll(logits, labels, mask, "seq_sum") + reference_log_probs
    return -2.0 / beta * functional.logsigmoid(beta * ratio).mean()


def simnpo(
    logits: Tensor, labels: Tensor, mask: Tensor, *, beta: float = 4.5, delta: float = 0.0
) -> Tensor:
    """Return ``-(2/beta) mean log sigmoid(beta (mean NLL - delta))``: NPO without a reference.

    Fan et al., 2024, arXiv:2410.07163; the paper's margin gamma is ``beta * delta``.
    """
    gap = sequence_nll(logits, labels, mask, "seq_mean") - delta
    return -2.0 / beta * functional.logsigmoid(beta * gap).mean()


def preference(
    wanted: Tensor,
    unwanted: Tensor,
    wanted_reference: Tensor,
    unwanted_reference: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """Return DPO's loss of an answer that is wanted against the one to forget.

    ``-(2/beta) mean log sigmoid(beta [log(P/P_ref)(wanted) - log(P/P_ref)(unwanted)])``. With a
    refusal as the wanted answer it is IdkDPO; with another answer of the model, AltPO (Mekala et
    al., COLING 2025, arXiv:2409.13474). Without its first term it is NPO.

    Args:
        wanted: Log-probability of each wanted answer, summed over its labels ``(B,)``.
        unwanted: Of each answer to forget.
        wanted_reference: Of each wanted answer under the reference model.
        unwanted_reference: Likewise.
        beta: How far the model may move from the reference.

    Returns:
        A scalar.
    """
    gain = (wanted - wanted_reference) - (unwanted - unwanted_reference)
    return -2.0 / beta * functional.logsigmoid(beta * gain).mean()


def squared_distance(hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the squared distance a channel of activations ``(B, T, D)`` from a target, RMU's.

    Mean over the labels of each sequence, then over sequences: the loss of a batch is the mean of
    the losses of its sequences. For forgetting the target is a fixed vector ``c u``, for retaining
    the reference model's activations (Li et al., ICML 2024, arXiv:2403.03218).
    """
    square = torch.where(mask, (hidden - target).square().mean(-1), 0.0)
    return (square.sum(-1) / mask.sum(-1)).mean()


def undial(
    logits: Tensor, labels: Tensor, mask: Tensor, reference_logits: Tensor, *, beta: float = 10.0
) -> Tensor:
    """Return the cross-entropy to the reference whose logit of the label is lower by ``beta``.

    Dong et al., NAACL 2025, arXiv:2402.10052. Mean over the places of the mask.
    """
    own = torch.where(mask, labels, 0)[..., None]
    lower = torch.full_like(own, -1, dtype=reference_logits.dtype) * beta
    target = reference_logits.scatter_add(-1, own, lower).softmax(-1)
    return token_mean(-(target * logits.log_softmax(-1)).sum(-1), mask)


def wga(logits: Tensor, labels: Tensor, mask: Tensor, *, beta: float = 1.0) -> Tensor:
    """Return ``-mean p^beta NLL`` over labels, without a gradient through the weight.

    Wang et al., ICLR 2025, arXiv:2502.19301. At beta 0 it is GA.
    """
    nll = token_nll(logits, labels, mask)
    return -token_mean((-beta * nll.detach()).exp() * nll, mask)


def satimp(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    saturation: float = 5.0,
    importance: float = 1.0,
) -> Tensor:
    """Return ``-mean p^saturation (1 - p)^importance NLL``, without a gradient through weights.

    Yang et al., ICML 2025, arXiv:2505.11953 (beta1, beta2).
    """
    nll = token_nll(logits, labels, mask)
    p = (-nll.detach()).exp()
    weight = p**saturation * (-torch.expm1(-nll.detach())) ** importance
    return -token_mean(weight * nll, mask)


def ceu(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy to the model's own distribution without the label.

    ``CE(p, stopgrad softmax(z with z_y = -inf))``; Yang, 2025, arXiv:2503.01224. The first label
    of each sequence is left out, unless it is the only one.
    """
    first = mask & (mask.cumsum(-1) == 1) & (mask.sum(-1, keepdim=True) > 1)
    own = torch.where(mask, labels, 0)[..., None]
    target = logits.detach().scatter(-1, own, float("-inf")).softmax(-1)
    return token_mean(-(target * logits.log_softmax(-1)).sum(-1), mask & ~first)


def logit_flatness(logits: Tensor, mask: Tensor) -> Tensor:
    """Return ``mean (max_v z_v - mean_v z_v)^2`` over labels: PDU's forget term.

    Entesari et al., 2025, arXiv:2506.05314. It is 0 where all tokens are as likely.
    """
    return token_mean((logits.amax(-1) - logits.mean(-1)).square(), mask)
