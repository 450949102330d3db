"""Forgetting quality: epsilon bounds from each example's margins, and their score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.stats.epsilon_bounds import epsilon_table, leak_p_values
from unlearnkit.stats.matrix_checks import blocks, check_margins
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

    corrected_rows: Tensor
    """The bounds that hold for all examples at once, after Bonferroni ``(E,)``."""

    p: Tensor
    """P-value of "epsilon is 0" for each example ``(E,)``."""

    q: Tensor
    """Those after Benjamini and Hochberg ``(E,)``."""

    shift: Tensor
    """Unlearned mean minus oracle mean ``(E,)``: above 0 an example looks too familiar."""

    exposed_count: float
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

    From margins of unlearned models ``(N, E)`` and oracles ``(M, E)``. Models at even places are
    fitted on: a normal law of each side's margins, the ratio of their likelihoods as score (it
    covers one- and two-sided rules), and the threshold with the largest Clopper-Pearson bound at
    level 0.9995 or, where none is above 0, with the fewest errors. (The largest bound at 0.95 puts
    thresholds further out, where few models are: at 512 models it finds a shift of half a deviation
    in 65 % of examples, this one in 90 %.) Models at odd places are attacked, and the bound is read
    from their errors. ``level`` is that of each example's own bound, and of all corrected ones at
    once.

    The released code of the NeurIPS 2023 competition takes the largest of 160,000 rules on the very
    models they were found on, an epsilon of 1.6 without any leakage. Models must be independent of
    each other, each unlearned one from its own original, and in no order that matters. With fewer
    than 16 models a side all is nan, with the reason.
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
        corrected_rows=corrected,
        p=p,
        q=benjamini_hochberg(p),
        shift=shift,
        exposed_count=int((corrected > 0).sum()),
        worst=float(corrected.max()),
        score=float(torch.exp2(-(rows / BIN).floor()).mean()),
        ceiling=ceiling,
        note="" if ceiling > 0 else f"{n0} and {n1} attacked models prove nothing when corrected",
    )


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
