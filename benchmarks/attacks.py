"""Attacks on margins of many models: wall time, and against loops over examples."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.measure import Fact, against, seconds
from unlearnkit.attacks.forgetting_quality import forgetting_quality
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.permutation import permutation_test
from unlearnkit.attacks.wasserstein import wasserstein

MODELS, EXAMPLES, TURNS = 100, 5000, 5
SIZE = f"{EXAMPLES} examples, {MODELS} unlearned models and {MODELS} oracles, one normal law"


def run() -> Iterator[Fact]:
    """Yield the time of each attack, and two of them against loops that do the same."""
    rng = torch.Generator().manual_seed(0)
    u, o = torch.randn(2, MODELS, EXAMPLES, generator=rng, dtype=torch.float64)
    yield timed("KLoM", lambda: klom(u, o), goal=0.2)
    yield timed("Wasserstein distance", lambda: wasserstein(u, o))
    yield timed(
        "permutation test, 999 relabellings, and forgetting quality",
        lambda: (permutation_test(u, o, rng=rng), forgetting_quality(u, o)),
        goal=10.0,
    )
    few_u, few_o = u[:, :500], o[:, :500]
    torch.testing.assert_close(klom(few_u, few_o, bins="easydub").rows, naive_klom(few_u, few_o))
    yield against(
        "KLoM against a loop over examples",
        lambda: klom(few_u, few_o, bins="easydub"),
        lambda: naive_klom(few_u, few_o),
        pairs=3,
        how="500 examples, released conventions",
    )
    torch.testing.assert_close(wasserstein(few_u, few_o).rows, naive_wasserstein(few_u, few_o))
    yield against(
        "Wasserstein distance against a loop over examples",
        lambda: wasserstein(few_u, few_o),
        lambda: naive_wasserstein(few_u, few_o),
        pairs=3,
        how="500 examples, scipy.stats",
    )


def timed(what: str, do: Callable[[], object], goal: float | None = None) -> Fact:
    """Return the median wall time of some calls, after one that is not counted."""
    do()
    times = sorted(seconds(do) for _ in range(TURNS))
    low, middle, high = statistics.quantiles(times, n=4)
    return Fact(what, middle, "s", low, high, goal, f"{SIZE}; {TURNS} times")


def naive_klom(unlearned: Tensor, oracle: Tensor) -> Tensor:
    """Return the divergence of each example by its definition, one histogram at a time."""
    found = []
    for ours, theirs in zip(unlearned.T.numpy(), oracle.T.numpy(), strict=True):
        low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
        edges = np.linspace(low, high, 21)
        shares = []
        for sample in (ours, theirs):
            at = np.digitize(sample, edges)
            counts = np.array([(at == k).sum() for k in range(1, 21)])
            shares.append(counts / counts.sum())
        p, q = shares
        held = p > 0
        found.append((p[held] * np.log(p[held] / q[held].clip(1e-5))).sum())
    return torch.tensor(np.array(found))


def naive_wasserstein(unlearned: Tensor, oracle: Tensor) -> Tensor:
    """Return SciPy's distance of each example in deviations of its oracles."""
    pairs = zip(unlearned.T.numpy(), oracle.T.numpy(), strict=True)
    return torch.tensor([stats.wasserstein_distance(a, b) / b.std(ddof=1) for a, b in pairs])
