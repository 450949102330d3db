"""Linear models that unlearn: requests on Adult and Drebin, against retraining.

``python -m benchmarks.linear`` writes ``docs/results/linear.md`` and its plot.
"""

import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.__main__ import section, told
from benchmarks.drawing import figure
from benchmarks.measure import Fact, machine, seconds, skipped
from unlearnkit.cases.adult import people
from unlearnkit.cases.data_folder import folder
from unlearnkit.linear import RemovableLogisticRegression, RemovalBudget
from unlearnkit.linear.gaussian_accounting import gaussian_epsilon
from unlearnkit.linear.losses import LOGISTIC_THIRD
from unlearnkit.linear.noise import gaussian_noise

ALPHA = 1.0
REQUESTS = 1000
RETRAININGS = 3
"""Retrainings that are timed; the time of 1,000 is extrapolated from their median."""

NUMERIC = (0, 2, 4, 10, 11, 12)
"""Columns of Adult that are numbers."""

MEASURED = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of deletions after which the residual is measured."""

CURVES: dict[str, tuple[list[float], list[float]]] = {}
"""Measured residuals and bounds of each method, for the plot."""

COLUMNS = 100_000
TILT_ALPHA = 4.0
"""Penalty of the audit in one dimension."""

RESULTS = Path(__file__).parent.parent / "docs" / "results"

PAGE = """# Linear models with a certificate

Written by `python -m benchmarks.linear`. Retraining and requests were timed in one run on one
thread; other programs shared the machine, so that Drebin's times are of the processor. Nothing here
is a test.

{machine}

![Measured residuals and bounds](linear.svg)

{table}

How to read it:

- The residual is the norm of the gradient on the rows that stay: 0 is a retrained model. A bound
  from stored numbers alone (`newton_step`, `infinitesimal_jackknife`) is loose, since it knows only
  norms of the removed step; one that reads the rows (`newton_removal`) is near the residual.
- Feature requests do not need a factor of the Hessian: conjugate gradients stop where what they
  leave is a tenth of the bound, and it is charged.
- A budget that runs out for some draws of the noise and not for others breaks its epsilon: models
  whose charge is too high are replaced by retrained ones, so that the rest is a selection. The
  certificate names this among its assumptions. `charge="uniform"` and noise in the output avoid it.
- Rows that pull the same way spend a budget many times faster than as many random rows.
- Drebin as prepared for these tests has 2,081 columns. The rest of the 10^5 are made: entries at
  random, more of them in the first columns, each carried by few rows.
- Features that matter much are removed in one Newton step only roughly; the bound says so, and
  `repair=True` goes to the minimum.
"""

RARE_ENTRIES = 20
"""Entries a row in the columns that are added to Drebin."""


def run() -> Iterator[Fact]:
    """Yield the facts of Adult, then those of Drebin."""
    yield from audit_facts()
    yield from adult_facts()
    yield from drebin_facts()


def adult() -> tuple[np.ndarray, np.ndarray] | None:
    """Return Adult's training rows in [-1, 1] norm 1 at most, and labels; None without the data."""
    place = folder("adult")
    if place is None or not (place / "adult.data").exists():
        return None
    table = np.array(people("adult.data"), dtype=object)
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
        times: list[float] = []
        residual: list[float] = []
        bound: list[float] = []
        for k, row in enumerate(rows):
            start = time.perf_counter()
            last = model.unlearn(rows=[row])
            times.append(time.perf_counter() - start)
            if k + 1 in MEASURED:
                residual.append(model.gradient_residual_norm())
                bound.append(last.budget_spent)
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
        CURVES[method] = residual, bound
        steps = ", ".join(
            f"{r:.2g} of {b:.2g}" for r, b in list(zip(residual, bound, strict=True))[::3]
        )
        yield Fact(
            f"{method}: gradient residual over its bound after 1,000 deletions",
            residual[-1] / bound[-1],
            goal=1.0,
            how=f"after 1, 10, 100 and 1,000 deletions: {steps}; distance to the retrained weights"
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
            last.budget_spent / last.budget,
            goal=1.0,
            how=f"{size}, alpha 32, epsilon 1, delta 1e-4, sigma 10; alignment"
            f" {last.alignment:.2f}; measured residual {model.gradient_residual_norm():.2g} of the"
            f" {last.budget_spent:.2g} charged; {spent:.2f} s; accuracy {model.score(x, y):.3f}",
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
        setup = seconds(lambda m=model, d=data: m.fit(d, y), time.process_time)
        yield Fact(f"{name}: fit", setup, "s", how=f"of the processor; {size}")
        common = np.argsort(-np.asarray(x.sum(axis=0)).ravel())
        for count, chosen in ((1, common[50:51]), (10, common[100:110]), (100, common[200:300])):
            start, clock = time.process_time(), time.perf_counter()
            last = model.unlearn(features=chosen.tolist())
            took, clock = time.process_time() - start, time.perf_counter() - clock
            yield Fact(
                f"{name}: a request for {count} features",
                took,
                "s",
                goal=1.0,
                how=f"of the processor, {clock:.2g} s by the clock; {size}; residual"
                f" {model.gradient_residual_norm():.2g}, bound {last.budget_spent:.2g};"
                f" largest weight left {abs(model.coef_[0, chosen]).max():.1g}",
            )
    yield Fact(
        "peak memory of this benchmark",
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "GiB",
    )


def audit_facts() -> Iterator[Fact]:
    """Yield log-ratios of densities in one dimension, removal against retraining."""
    rng = np.random.default_rng(0)
    x = rng.choice(np.linspace(-1, 1, 8), 400)
    y = (rng.random(400) < expit(3 * x)).astype(float)
    x[:4], y[:4] = 1.0, 0.0
    keep, draws = x[4:], 100_000
    tilt, *others = (gaussian_noise(k, "audit", (draws,)) for k in range(3))
    w = trained(x, y, tilt)
    again, fresh = (trained(keep, y[4:], b) for b in others)
    p = expit(np.outer(w, keep))
    step = ((expit(np.outer(w, x[:4])) - y[:4]) @ x[:4]) / ((p * (1 - p)) @ keep**2 + TILT_ALPHA)
    bound = LOGISTIC_THIRD / 2 * np.linalg.norm(keep) * np.sqrt((keep**4).sum()) * step**2
    how = (
        f"400 rows, 4 of them removed, alpha {TILT_ALPHA:g}, sigma 1, {draws:,} trainings, 29 bins"
    )
    yield Fact(
        "density ratio, no removal: largest log-ratio",
        log_ratio(w, again),
        "nats",
        how=f"{how} of the bulk (1 % to 99 %)",
    )
    for name, share in (("pays for every draw", 1.0), ("runs out for a tenth of the draws", 0.9)):
        limit = float(np.quantile(bound, share))
        mixed = np.where(bound <= limit, w + step, fresh)
        yield Fact(
            f"density ratio, data-dependent charge, budget that {name}: largest log-ratio",
            log_ratio(mixed, again),
            "nats",
            goal=round(gaussian_epsilon(limit, 1e-3), 3),
            how=f"goal: epsilon at delta 1e-3 and budget {limit:.3g}; draws that it does not pay"
            " for are retrained with fresh noise",
        )


def trained(x: np.ndarray, y: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Return the minimisers of logistic problems with one weight, one for each tilt."""
    values, at = np.unique(x, return_inverse=True)
    count, pull = np.bincount(at), x @ y
    grid = np.linspace(-20, 20, 4001)
    slope = expit(np.outer(grid, values)) @ (count * values) - pull + TILT_ALPHA * grid
    w = np.interp(-tilt, slope, grid)
    for _ in range(3):
        p = expit(np.outer(w, values))
        gradient = p @ (count * values) - pull + TILT_ALPHA * w + tilt
        w = w - gradient / ((p * (1 - p)) @ (count * values**2) + TILT_ALPHA)
    return w


def log_ratio(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest absolute log-ratio of two samples in bins of the bulk of the second."""
    edges = np.quantile(other, np.linspace(0.01, 0.99, 30))
    a, c = (np.maximum(np.histogram(s, edges)[0], 0.5) for s in (one, other))
    return float(abs(np.log(a / c)).max())


def draw(path: Path) -> None:
    """Draw measured residuals and their bounds over the number of deletions."""
    with figure(path, 6, 3.5) as drawn:
        axes = drawn.subplots()
        for (method, (residual, bound)), colour in zip(CURVES.items(), ("C0", "C1"), strict=True):
            axes.loglog(MEASURED, bound, colour, linestyle="--", label=f"{method}: bound")
            axes.loglog(MEASURED, residual, colour, marker="o", label=f"{method}: measured")
        axes.set_xlabel("rows of Adult removed, one by one")
        axes.set_ylabel("gradient residual norm")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)


def main() -> None:
    """Measure and write the page."""
    facts = list(told(run()))
    about = "\n".join(f"- {key}: {value}" for key, value in machine().items())
    text = PAGE.format(machine=about, table=section(facts))
    (RESULTS / "linear.md").write_text(text, "utf-8")
    draw(RESULTS / "linear.svg")


if __name__ == "__main__":
    main()
