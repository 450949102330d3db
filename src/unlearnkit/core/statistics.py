"""Numbers that several metrics share: ROC curves, distances of distributions, entropies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

LOG_2 = math.log(2.0)


@dataclass(frozen=True)
class Curve:
    """Points of a ROC curve, from (0, 0) to (1, 1), one for each distinct score."""

    fpr: Tensor
    """Share of the others at or above the threshold ``(P,)``."""

    tpr: Tensor
    """Share of the members at or above the threshold ``(P,)``."""

    threshold: Tensor
    """Falling thresholds ``(P,)``; the first is infinite."""


def roc_curve(members: Tensor, others: Tensor) -> Curve:
    """Return the ROC curve of a score that is larger for members.

    Rows with equal scores enter together, so that their order does not matter.

    Args:
        members: Scores ``(m,)``, at least one.
        others: Scores ``(n,)``, at least one.

    Returns:
        The curve, float64.
    """
    ins, outs = members.double(), others.double()
    ladder = torch.cat([ins, outs]).sort(descending=True).values
    levels = torch.unique_consecutive(ladder)
    return Curve(
        fpr=_first_zero(_at_or_above(outs, levels)),
        tpr=_first_zero(_at_or_above(ins, levels)),
        threshold=torch.cat([levels.new_full((1,), math.inf), levels]),
    )


def auc(members: Tensor, others: Tensor) -> float:
    """Return the chance that a member scores above another row; a tie counts one half.

    In O(n log n), exact: wins are whole or half numbers.

    Args:
        members: Scores ``(m,)``; infinite ones are allowed.
        others: Scores ``(n,)``.

    Returns:
        The area under the ROC curve; nan if there are no members, no others, or a nan among them.
    """
    if not _comparable(members, others):
        return math.nan
    return float(placement(members, others).sum()) / (len(members) * len(others))


def placement(scores: Tensor, others: Tensor) -> Tensor:
    """Return how many others each score beats, a tie counting one half.

    Args:
        scores: ``(..., m)``; infinite ones are allowed.
        others: ``(..., n)``, with the same leading sizes.

    Returns:
        Whole or half numbers ``(..., m)``, float64.
    """
    ladder, mine = others.double().contiguous().sort(-1).values, scores.double().contiguous()
    below = torch.searchsorted(ladder, mine, right=False)
    return (below + torch.searchsorted(ladder, mine, right=True)).double() / 2


def delong_variance(members: Tensor, others: Tensor) -> float:
    """Return the variance of the AUC over draws of rows, the model given.

    ``var(V10) / m + var(V01) / n``, where V10 is each member's share of others below it and V01
    each other row's share of members above it (DeLong et al., Biometrics 44, 1988; ranks after Sun
    and Xu, IEEE Signal Processing Letters 21, 2014).

    Args:
        members: Scores ``(m,)``.
        others: Scores ``(n,)``.

    Returns:
        The variance; nan for fewer than two members or two others, or a nan among them.
    """
    if min(len(members), len(others)) < 2 or not _comparable(members, others):
        return math.nan
    above = placement(members, others) / len(others)
    below = 1 - placement(others, members) / len(members)
    return float(above.var() / len(members) + below.var() / len(others))


def auc_difference(
    members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    """Return the AUC of a first score minus that of a second on the same rows, and its error.

    ``var(V10 - W10) / m + var(V01 - W01) / n`` with V of the first and W of the second score: the
    paired form of DeLong et al., Biometrics 44, 1988.

    Args:
        members: First and second scores of the members, ``(m,)`` each.
        others: First and second scores of the other rows, ``(n,)`` each.

    Returns:
        The difference and its standard error over draws of rows; nan for fewer than two rows on a
        side, or a nan among the scores.
    """
    first, second = zip(members, others, strict=True)
    least = min(len(members[0]), len(others[0]))
    if least < 2 or not (_comparable(*first) and _comparable(*second)):
        return math.nan, math.nan
    m, n = len(members[0]), len(others[0])
    above = (placement(*first) - placement(*second)) / n
    below = (placement(*second[::-1]) - placement(*first[::-1])) / m
    return float(above.mean()), math.sqrt(float(above.var() / m + below.var() / n))


def auc_interval(
    members: Tensor, others: Tensor, level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of the AUC over draws of rows, the model given.

    DeLong's variance on the logit scale: ``logit(a) ± z se / (a (1 - a))``. Where that variance is
    0 (the scores are all equal, or separate the groups), k = min(m, n) disjoint pairs of a
    member and another row all came out alike, so that their outcome has a chance of at least
    ``c = ((1 - level) / 2) ** (1 / k)``, which bounds the AUC.

    Args:
        members: Scores ``(m,)``.
        others: Scores ``(n,)``.
        level: Coverage.

    Returns:
        Lower and upper end; None where there is no AUC, or no variance.
    """
    pairs = min(len(members), len(others))
    return area_interval(auc(members, others), delong_variance(members, others), pairs, level)


def area_interval(
    area: float, variance: float, pairs: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of an AUC of known variance, as ``auc_interval`` does.

    Args:
        area: The AUC.
        variance: Its variance.
        pairs: Disjoint pairs of a member and another row, at least one.
        level: Coverage.

    Returns:
        Lower and upper end; None where the AUC or its variance is not a number.
    """
    tail = (1 - level) / 2
    if area in {0.0, 1.0} or variance == 0:
        sure = tail ** (1 / pairs)
        if area == 1.0:
            return sure, 1.0
        if area == 0.0:
            return 0.0, 1.0 - sure
        return sure / 2, 1.0 - sure / 2
    if math.isnan(area) or math.isnan(variance):
        return None
    centre = math.log(area / (1 - area))
    reach = NormalDist().inv_cdf(1 - tail) * math.sqrt(variance) / (area * (1 - area))
    return _sigmoid(centre - reach), _sigmoid(centre + reach)


def caught_at_fpr(members: Tensor, others: Tensor, fpr: float) -> Tensor:
    """Return which members a threshold catches that no more than a share of the others passes.

    The lowest such threshold: the largest true-positive rate with a false-positive rate of at most
    ``fpr``. Scores must exceed the ``floor(fpr * n) + 1``-th largest score of the others.

    Args:
        members: Scores ``(m,)``.
        others: Scores ``(n,)``, at least one.
        fpr: Share of the others that may pass, in [0, 1).

    Returns:
        One boolean a member ``(m,)``.
    """
    # The product of a share and a count that is whole must not fall short of it by rounding.
    may_pass = math.floor(fpr * len(others) * (1 + 1e-12))
    edge = others.double().sort(descending=True).values[may_pass]
    return members.double() > edge


def tpr_at_fpr(members: Tensor, others: Tensor, fpr: float) -> float:
    """Return the largest share of members caught while at most a share ``fpr`` of others is."""
    return float(caught_at_fpr(members, others, fpr).double().mean())


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
    """Return each row's modified entropy ``(B,)``: small if surely right, large if surely wrong.

    ``-(1 - p_y) log p_y - sum over k != y of p_k log(1 - p_k)`` (Song and Mittal, USENIX Security
    2021, equation 6). ``log(1 - p_k)`` is log1p(-p_k); for the row's top class, where that rounds,
    it is the logarithm of the sum of the other probabilities.

    Args:
        log_p: Log-probabilities ``(B, C)``.
        y: Classes ``(B,)``.

    Returns:
        Nats, from 0 up.
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


def _comparable(members: Tensor, others: Tensor) -> bool:
    if not len(members) or not len(others):
        return False
    return not bool(members.isnan().any() or others.isnan().any())


def _at_or_above(scores: Tensor, levels: Tensor) -> Tensor:
    ladder = scores.sort().values
    return (len(scores) - torch.searchsorted(ladder, levels, right=False)).double() / len(scores)


def _first_zero(shares: Tensor) -> Tensor:
    return torch.cat([shares.new_zeros(1), shares])


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
