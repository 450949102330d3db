"""Forgetting quality: the epsilon that each forgotten example's margins prove, and its score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnkit.stats.epsilon_bounds import epsilon_table, leak_p_values
from unlearnkit.stats.margin_checks import blocks, check_margins
from unlearnkit.stats.multiple_testing import benjamini_hochberg

LEAST_MODELS = 16
"""Models a side: half are fitted on, and from 8 attacked ones nothing much can be proven."""

SEARCH_LEVEL = 0.9995
"""Level of the bounds that thresholds are chosen by: of one example among a hundred at once."""

BIN = 0.5
"""Epsilons in a bin of the score, in nats."""


@dataclass(frozen=True)
class Quality:
    """What an attack that was fitted on other models proves about each example."""

    rows: Tensor
    """Lower bound on epsilon of each example by itself, nats ``(E,)``."""

    corrected: Tensor
    """The bounds that hold for all examples at once, after Bonferroni ``(E,)``."""

    p: Tensor
    """P-value of "epsilon is 0" for each example ``(E,)``."""

    q: Tensor
    """Those after Benjamini and Hochberg ``(E,)``."""

    shift: Tensor
    """Unlearned mean minus oracle mean ``(E,)``: above 0 an example looks too familiar."""

    exposed: float
    """Number of examples whose corrected bound is above 0; nan where undefined."""

    worst: float
    """Largest corrected bound, nats."""

    score: float
    """F: mean of ``2 / 2^n`` with n the bin of each example's own bound, from 1; 1 is best."""

    ceiling: float
    """Largest corrected bound that so many models and examples could have given, nats."""

    note: str = ""
    """Why it is undefined, or what limits it."""


def forgetting_quality(
    unlearned: Tensor, oracle: Tensor, *, delta: float = 0.0, level: float = 0.95
) -> Quality:
    """Return lower bounds on epsilon for each example, valid because threshold and errors differ.

    Models at even places are fitted on: a normal law of each side's margins, the ratio of their
    likelihoods as score (it covers one- and two-sided rules), and the threshold with the largest
    Clopper-Pearson bound at level 0.9995 or, where none is above 0, with the fewest errors. (The
    largest bound at 0.95 puts thresholds further out, where few models are: at 512 models it finds
    a shift of half a deviation in 65 % of examples, this one in 90 %.) Models at odd places are
    attacked, and the bound is read from their errors.

    The released code of the NeurIPS 2023 competition takes the largest of 160,000 rules on the very
    models they were found on, an epsilon of 1.6 without any leakage; see ``competition_quality``.
    Models must be independent of each other, each unlearned one from its own original, and in no
    order that matters.

    Args:
        unlearned: Margins of unlearned models ``(N, E)``.
        oracle: Margins of oracles ``(M, E)``.
        delta: Probability of events that are not bounded.
        level: Of the bounds: of each example's own, and of all corrected ones at once.

    Returns:
        Bounds, p-values and the score; nan with the reason for fewer than 16 models a side.
    """
    check_margins("forgetting_quality", unlearned=unlearned, oracle=oracle)
    (n, examples), m = unlearned.shape, len(oracle)
    if min(n, m) < LEAST_MODELS or not examples:
        why = f"{n} unlearned models and {m} oracles; {LEAST_MODELS} of each are the least"
        return _undefined(examples, why if examples else "no examples")
    n0, n1 = m // 2, n // 2
    search = _worth(m - n0, n - n1, delta)
    alarms, misses = (torch.zeros(examples, dtype=torch.long) for _ in range(2))
    shift = torch.zeros(examples, dtype=torch.float64)
    for part in blocks(examples, 12 * (n + m)):
        ours, theirs = unlearned[:, part].double(), oracle[:, part].double()
        laws = _Laws.fit(ours[0::2], theirs[0::2])
        edge = _threshold(laws.score(ours[0::2]), laws.score(theirs[0::2]), search)
        alarms[part] = (laws.score(theirs[1::2]) > edge).sum(0)
        misses[part] = (laws.score(ours[1::2]) <= edge).sum(0)
        shift[part] = ours.mean(0) - theirs.mean(0)
    own = epsilon_table(n0, n1, delta=delta, level=level).clamp(min=0)
    all_at_once = 1 - (1 - level) / examples
    shared = epsilon_table(n0, n1, delta=delta, level=all_at_once).clamp(min=0)
    rows, corrected = own[alarms, misses], shared[alarms, misses]
    p = leak_p_values(alarms, n0, misses, n1, delta=delta)
    ceiling = float(shared[0, 0])
    return Quality(
        rows=rows,
        corrected=corrected,
        p=p,
        q=benjamini_hochberg(p),
        shift=shift,
        exposed=int((corrected > 0).sum()),
        worst=float(corrected.max()),
        score=float(torch.exp2(-(rows / BIN).floor()).mean()),
        ceiling=ceiling,
        note="" if ceiling > 0 else f"{n0} and {n1} attacked models prove nothing when corrected",
    )


@dataclass(frozen=True)
class Competition:
    """The NeurIPS 2023 competition's forgetting quality, as its code computes it."""

    rows: Tensor
    """Epsilon of each example, nats, at most 50 ``(E,)``; without leakage about 1.6."""

    score: float
    """F: mean of ``2 / 2^n`` with n the bin of each epsilon from 1, and 0 beyond the last bin."""

    note: str = ""
    """Why it is undefined, or for how many examples."""


DELTA = 1e-5
CAP = 50.0
"""Epsilon of two samples that a rule separates, or of which one has hardly any spread."""

PER_UNIT = 100
"""Thresholds in a unit of margin."""

BUFFER = 2.0
"""Margin by which intervals go beyond the narrower sample."""


def competition_quality(unlearned: Tensor, oracle: Tensor) -> Competition:
    """Return the forgetting quality as the released code of the competition computes it.

    Each example's epsilon is the largest of ``log((1 - delta - fpr) / fnr)`` and ``log((1 - delta -
    fnr) / fpr)`` over all thresholds and all intervals on a grid, delta 1e-5, on the very models
    that the rule is chosen on (Triantafillou et al., 2024, arXiv:2406.09073; repository
    google-deepmind/unlearning_evaluation, metric.py). One changed line: its ``assert`` on an array,
    which stops on every input. Perfect unlearning reads about 0.17, not 1: publish it beside the
    number of a second set of oracles. ``forgetting_quality`` is the sound one.

    Args:
        unlearned: Margins of unlearned models ``(N, E)``.
        oracle: Margins of as many oracles ``(N, E)``.

    Returns:
        Each example's epsilon and the score, in single precision as there.
    """
    check_margins("competition_quality", unlearned=unlearned, oracle=oracle)
    n, examples = unlearned.shape
    if n != len(oracle) or n < LEAST_MODELS or not examples:
        why = f"{n} unlearned models and {len(oracle)} oracles; as many of each are needed, and at"
        why += f" least {LEAST_MODELS}"
        rows = torch.full((examples,), math.nan, dtype=torch.float64)
        return Competition(rows, math.nan, why if examples else "no examples")
    found = []
    for k in range(examples):
        ours, theirs = (np.sort(s[:, k].double().numpy()) for s in (unlearned, oracle))
        above = np.median(theirs) > np.median(ours)
        found.append(_largest_epsilon(theirs, ours) if above else _largest_epsilon(ours, theirs))
    rows = torch.tensor(found, dtype=torch.float64)
    last = math.floor(math.ceil(math.log(n - 1)) / BIN)
    place = (rows / BIN).floor()
    points = torch.where(place < last, torch.exp2(-place), torch.zeros_like(rows))
    lost = int(rows.isnan().sum())
    if lost:
        return Competition(rows, math.nan, f"no rule is kept for {lost} of {examples} examples")
    return Competition(rows, float(points.mean()))


Values = NDArray[np.float64]
Counts = NDArray[np.intp]


def _largest_epsilon(positive: Values, negative: Values) -> float:
    """Return the largest epsilon over all rules, of two rising samples; nan if none is kept."""
    wide, narrow = sorted((float(np.ptp(positive)), float(np.ptp(negative))), reverse=True)
    if wide == 0 or narrow / wide < 0.01:
        # The code divides 0 by 0 where nothing varies, and then finds no rule or a perfect one.
        return CAP if wide > 0 or positive[0] != negative[0] else math.nan
    swapped = np.ptp(positive) >= np.ptp(negative)
    inner, outer = (negative, positive) if swapped else (positive, negative)
    spans = [
        np.concatenate(rates)
        for rates in zip(_between(inner, outer), _at_least(positive, negative), strict=True)
    ]
    fpr, fnr = (counts.astype(np.float32) / np.float32(len(positive)) for counts in spans)
    if bool(((fpr == 0) & (fnr == 0)).any()):
        return CAP
    kept = (fpr > 0) & (fnr > 0)
    if not kept.any():
        return math.nan
    fpr, fnr = fpr[kept], fnr[kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        first = np.log(1 - DELTA - fpr) - np.log(fnr)
        second = np.log(1 - DELTA - fnr) - np.log(fpr)
    return float(np.clip(np.fmax.reduce(np.concatenate([first, second])), 0, CAP))


def _between(inner: Values, outer: Values) -> tuple[Counts, Counts]:
    """Return false alarms and misses of the rules "between l and r is the narrower sample"."""
    width = inner[-1] - inner[0]
    low, high = inner[0] + width - BUFFER, inner[-1] + BUFFER
    right = np.linspace(low, high, math.ceil((high - low) * PER_UNIT))
    steps = math.ceil(2 * BUFFER * PER_UNIT)
    left = np.linspace(right - width - BUFFER, right - width + BUFFER, steps)

    def inside(sample: Values) -> Counts:
        found = np.searchsorted(sample, right, side="right") - np.searchsorted(sample, left)
        return np.asarray(found, dtype=np.intp).clip(min=0).ravel()

    return inside(outer), len(inner) - inside(inner)


def _at_least(positive: Values, negative: Values) -> tuple[Counts, Counts]:
    """Return false alarms and misses of the rules "from t on is the sample of larger median"."""
    low = min(positive[0], negative[0])
    high = max(positive[-1], negative[-1])
    edges = torch.linspace(low, high, math.ceil((high - low) * PER_UNIT)).double().numpy()
    alarms = len(negative) - np.searchsorted(negative, edges)
    return alarms, np.searchsorted(positive, edges)


@dataclass(frozen=True)
class _Laws:
    """A normal law of each side's margins at each example."""

    ours: Tensor
    """Mean and deviation of unlearned margins ``(2, E)``."""

    theirs: Tensor

    @classmethod
    def fit(cls, ours: Tensor, theirs: Tensor) -> _Laws:
        # A sample that does not vary is still a law: one much narrower than all there is.
        least = 1e-6 * torch.cat([ours, theirs]).std(0)
        least = torch.where(least > 0, least, 1.0)

        def law(side: Tensor) -> Tensor:
            return torch.stack([side.mean(0), side.std(0).maximum(least)])

        return cls(law(ours), law(theirs))

    def score(self, margins: Tensor) -> Tensor:
        """Return the log-likelihood ratio of unlearned against oracle."""
        (mean, spread), (base, base_spread) = self.ours, self.theirs
        far, base_far = (margins - mean) / spread, (margins - base) / base_spread
        return torch.add((base_far.square() - far.square()) / 2, (base_spread / spread).log())


def _worth(n0: int, n1: int, delta: float) -> Tensor:
    """Return how good counts of errors are: by their bound, and where it is 0 by their sum."""
    bound = epsilon_table(n0, n1, delta=delta, level=SEARCH_LEVEL)
    alarms, misses = (torch.arange(n + 1, dtype=torch.float64) / n for n in (n0, n1))
    return torch.where(bound > 0, 1 + bound, 1 - alarms[:, None] - misses)


def _threshold(ours: Tensor, theirs: Tensor, worth: Tensor) -> Tensor:
    """Return the threshold between scores that is worth most ``(E,)``."""
    n = len(ours)
    falling, order = torch.cat([ours, theirs]).sort(0, descending=True)
    caught = torch.cat([torch.zeros_like(order[:1]), (order < n).cumsum(0)])
    alarms = torch.arange(len(caught))[:, None] - caught
    value = worth[alarms, n - caught]
    end = torch.full_like(falling[:1], math.inf)
    above, under = torch.cat([end, falling]), torch.cat([falling, -end])
    best = torch.where(above > under, value, -math.inf).argmax(0, keepdim=True)
    edge = (above.gather(0, best) + under.gather(0, best)) / 2
    return edge[0]


def _undefined(examples: int, why: str) -> Quality:
    empty = torch.full((examples,), math.nan, dtype=torch.float64)
    nan = math.nan
    return Quality(empty, empty, empty, empty, empty, nan, nan, nan, nan, why)
