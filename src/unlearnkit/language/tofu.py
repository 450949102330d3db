"""TOFU metrics: probability, truth ratio, model utility and forget quality.

Maini et al., COLM 2024, arXiv:2401.06121. A *log-probability* of an answer is that of its mean
token, in nats, given the question: ``exp`` of it is ``P(a | q)^(1 / |a|)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError

Average = Literal["geometric", "arithmetic"]


def answer_probability(log_probs: Tensor) -> Tensor:
    """Return ``P(a | q)^(1 / |a|)`` ``(N,)`` from mean token log-probabilities ``(N,)``."""
    return log_probs.exp()


def choice_probability(right: Tensor, wrong: Tensor) -> Tensor:
    """Return the right answer's share of the probability of all answers ``(N,)``.

    Args:
        right: Mean token log-probabilities of right answers ``(N,)``.
        wrong: Of J wrong answers each ``(N, J)``.

    Returns:
        ``p / (p + sum_j p_j)``, for questions about real authors and world facts.
    """
    return torch.cat([right[:, None], wrong], dim=1).softmax(1)[:, 0]


def truth_ratio(right: Tensor, wrong: Tensor, average: Average = "geometric") -> Tensor:
    """Return the probability of wrong answers over that of a right one ``(N,)``.

    Args:
        right: Mean token log-probabilities of the paraphrased right answer ``(N,)``, or of the
            answer itself for real authors and world facts.
        wrong: Of J wrong answers in the same words ``(N, J)``.
        average: Over the wrong answers: ``geometric`` as in the public code, ``arithmetic`` as in
            the paper's equation 1.

    Returns:
        At least 0; below 1 where the right answer is the more probable one.
    """
    if average == "geometric":
        return (wrong.mean(1) - right).exp()
    return (wrong.logsumexp(1) - math.log(wrong.shape[1]) - right).exp()


def forget_truth(ratios: Tensor) -> float:
    """Return the mean of ``min(R, 1 / R)`` of forget questions; right is the retrained model's."""
    return float(torch.minimum(ratios, 1 / ratios).double().mean())


def retain_truth(ratios: Tensor) -> float:
    """Return the mean of ``max(0, 1 - R)`` of other questions; 1 is full knowledge."""
    return float((1 - ratios).clamp(min=0).double().mean())


def model_utility(values: Sequence[float]) -> float:
    """Return the harmonic mean of probability, ROUGE-L recall and ``retain_truth``.

    On retain questions, real authors and world facts: nine numbers in the paper. 0 if any is 0.

    Raises:
        InputError: If there is no value, or one is not between 0 and 1.
    """
    if not values or not all(0 <= v <= 1 for v in values):
        raise InputError(f"model_utility: values must be in [0, 1], got {list(values)}")
    if min(values) == 0:
        return 0.0
    return len(values) / math.fsum(1 / v for v in values)


@dataclass(frozen=True)
class ForgetQuality:
    """Whether truth ratios on forget questions are distributed as the retrained model's."""

    p: float
    """P-value, the paper's forget quality: above 0.05 no difference is shown, which is no proof of
    likeness, least of all with few questions."""

    distance: float
    """Kolmogorov-Smirnov statistic in [0, 1]: the largest difference of the two distributions."""


def forget_quality(unlearned: Tensor, retrained: Tensor) -> ForgetQuality:
    """Return the two-sample Kolmogorov-Smirnov test of truth ratios ``(N,)`` and ``(M,)``.

    Any monotone map of the ratios leaves it as it is, so that it does not matter which way round
    they are.

    Raises:
        InputError: If either is empty or has a nan.
    """
    for ratios in (unlearned, retrained):
        if not len(ratios) or bool(ratios.isnan().any()):
            raise InputError(
                f"forget_quality: ratios without nan are needed, got {len(ratios)} with"
                f" {int(ratios.isnan().sum())} nan; leave out empty answers"
            )
    from scipy.stats import ks_2samp  # half a second, which no other number needs

    found = ks_2samp(unlearned.double().cpu().numpy(), retrained.double().cpu().numpy())
    return ForgetQuality(float(found.pvalue), float(found.statistic))
