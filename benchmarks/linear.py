"""Linear models that unlearn: time of a request on Adult and Drebin, against retraining.

``python -m benchmarks.linear`` writes ``docs/results/linear.md``.
"""

import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.measure import Fact, seconds, skipped
from unlearnkit.cases.data_folder import folder
from unlearnkit.linear import RemovableLogisticRegression, RemovalBudget

ALPHA = 1.0
REQUESTS = 1000
RETRAININGS = 3
"""Retrainings that are timed; the time of 1,000 is extrapolated from their median."""

NUMERIC = (0, 2, 4, 10, 11, 12)
"""Columns of Adult that are numbers."""

COLUMNS = 100_000
RARE_ENTRIES = 20
"""Entries a row in the columns that are added to Drebin."""


def run() -> Iterator[Fact]:
    """Yield the facts of Adult, then those of Drebin."""
    yield from adult_facts()
    yield from drebin_facts()


def adult() -> tuple[np.ndarray, np.ndarray] | None:
    """Return Adult's training rows in [-1, 1] norm 1 at most, and labels; None without the data."""
    place = folder("adult")
    if place is None or not (place / "adult.data").exists():
        return None
    lines = (place / "adult.data").read_text("utf-8").splitlines()
    table = np.array([line.split(", ") for line in lines if line.strip()], dtype=object)
    numbers = StandardScaler().fit_transform(table[:, NUMERIC].astype(float))
    words = np.delete(table[:, :-1], NUMERIC, axis=1)
    x = np.hstack([numbers, OneHotEncoder(sparse_output=False).fit_transform(words)])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, (table[:, -1] == ">50K").astype(int)


def adult_facts() -> Iterator[Fact]:
    """Yield set-up, time of single requests, speed against retraining, memory and bounds."""
    found = adult()
    if found is None:
        yield skipped("Adult", "UNLEARNKIT_DATA names no folder with adult/adult.data")
        return
    x, y = found
    size = f"Adult, {len(x):,} x {x.shape[1]}"
    rows = np.random.default_rng(0).permutation(len(x))[:REQUESTS]
    keep = np.delete(np.arange(len(x)), rows)
    retrain = statistics.median(
        seconds(lambda: LogisticRegression(C=1 / ALPHA, tol=1e-8, max_iter=1000).fit(x, y))
        for _ in range(RETRAININGS)
    )
    yield Fact("one retraining by scikit-learn", retrain, "s", how=f"{size}, lbfgs, tol 1e-8")
    again = RemovableLogisticRegression(ALPHA, penalize_intercept=True).fit(x[keep], y[keep])
    for method in ("newton_step", "infinitesimal_jackknife"):
        model = RemovableLogisticRegression(ALPHA, penalize_intercept=True, method=method)
        setup = seconds(lambda m=model: m.fit(x, y))
        yield Fact(f"{method}: set-up", setup, "s", how=size)
        times, residual, bound = [], [], []
        for k, row in enumerate(rows):
            start = time.perf_counter()
            last = model.unlearn(rows=[row])
            times.append(time.perf_counter() - start)
            if k in (0, 9, 99, 999):
                residual.append(model.gradient_residual_norm())
                bound.append(last.spent)
        middle = 1e3 * statistics.median(times)
        yield Fact(f"{method}: one deletion", middle, "ms", goal=5.0, how=f"{size}, median")
        yield Fact(
            f"{method}: 1,000 retrainings over 1,000 deletions",
            REQUESTS * retrain / sum(times),
            "ratio",
            how=f"at least 200 wanted; retraining extrapolated from {RETRAININGS}, same run;"
            f" {sum(times):.2f} s against {REQUESTS * retrain:.0f} s",
        )
        apart = np.linalg.norm(
            np.r_[model.coef_[0] - again.coef_[0], model.intercept_ - again.intercept_]
        )
        steps = ", ".join(f"{r:.2g} of {b:.2g}" for r, b in zip(residual, bound, strict=True))
        yield Fact(
            f"{method}: gradient residual over its bound after 1,000 deletions",
            residual[-1] / bound[-1],
            goal=1.0,
            how=f"after 1, 10, 100, 1,000 deletions: {steps}; distance to the retrained weights"
            f" {apart:.2g}, bound {last.distance:.2g}",
        )
        f = model._state.factors
        held = sum(a.nbytes for a in (f.inverse, f.hessian, f.gram, f.shift, f.pull))
        yield Fact(
            f"{method}: stored numbers, in squares of the number of weights",
            held / 8 / (x.shape[1] + 1) ** 2,
            "count",
            goal=5.0,
            how=f"{held / 2**20:.2f} MiB",
        )
    yield from removal_facts(x, y, size)


def removal_facts(x: np.ndarray, y: np.ndarray, size: str) -> Iterator[Fact]:
    """Yield how many deletions a budget pays for, random ones and one class only."""
    budget = RemovalBudget(
        epsilon=1, delta=1e-4, sigma=10, perturbation="objective", noise=0, row_norm=1.5
    )
    rng = np.random.default_rng(1)
    draws = {
        "random rows": rng.permutation(len(x)),
        "high earners": rng.permutation(np.flatnonzero(y)),
    }
    for name, rows in draws.items():
        model = RemovableLogisticRegression(ALPHA * 32, penalize_intercept=True, budget=budget)
        model.fit(x, y)
        start = time.perf_counter()
        last = model.unlearn(rows=rows[:100])
        spent = time.perf_counter() - start
        yield Fact(
            f"newton_removal, budget: share spent by 100 {name}",
            last.spent / last.budget,
            goal=1.0,
            how=f"{size}, alpha 32, epsilon 1, delta 1e-4, sigma 10; alignment"
            f" {last.alignment:.2f}; measured residual {model.gradient_residual_norm():.2g} of the"
            f" {last.spent:.2g} charged; {spent:.2f} s; accuracy {model.score(x, y):.3f}",
        )


def drebin_facts() -> Iterator[Fact]:
    """Yield the time of feature requests on Drebin, as it is and widened to 10^5 columns."""
    place = folder("drebin")
    if place is None or not (place / "x_train.npz").exists():
        yield skipped("Drebin", "UNLEARNKIT_DATA names no folder with drebin/x_train.npz")
        return
    x = sp.csr_array(sp.load_npz(place / "x_train.npz").astype(np.float64))
    y = np.load(place / "y_train.npy")
    rng = np.random.default_rng(0)
    width = COLUMNS - x.shape[1]
    columns = x.shape[1] + (width * rng.random((x.shape[0], RARE_ENTRIES)) ** 3).astype(int)
    rows = np.repeat(np.arange(x.shape[0]), RARE_ENTRIES)
    rare = sp.csr_array((np.ones(rows.size), (rows, columns.ravel())), shape=(x.shape[0], COLUMNS))
    rare.data[:] = 1.0
    wide = sp.csr_array(sp.hstack([x, rare[:, x.shape[1] :]]))
    for name, data in (("Drebin", x), ("Drebin and made rare columns", wide)):
        size = f"{data.shape[0]:,} x {data.shape[1]:,}, {data.nnz:,} entries"
        model = RemovableLogisticRegression(ALPHA, penalize_intercept=True)
        setup = seconds(lambda m=model, d=data: m.fit(d, y))
        yield Fact(f"{name}: fit", setup, "s", how=size)
        common = np.argsort(-np.asarray(x.sum(axis=0)).ravel())
        for count, chosen in ((1, common[50:51]), (10, common[100:110]), (100, common[200:300])):
            start = time.perf_counter()
            last = model.unlearn(features=chosen.tolist())
            took = time.perf_counter() - start
            yield Fact(
                f"{name}: a request for {count} features",
                took,
                "s",
                goal=1.0,
                how=f"{size}; residual {model.gradient_residual_norm():.2g}, bound"
                f" {last.spent:.2g}; largest weight left"
                f" {abs(model.coef_[0, chosen]).max():.1g}",
            )
    yield Fact(
        "peak memory of this benchmark",
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "GiB",
    )


if __name__ == "__main__":
    for fact in run():
        print(fact.line(), flush=True)
