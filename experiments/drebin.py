"""Features of Android malware removed from a linear model: residuals, accuracy, time.

Run with ``python -m experiments drebin``; with ``--write`` it writes ``docs/results/drebin.md``.
The data are read from ``UNLEARNKIT_DATA``.
"""

import argparse
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.metrics import accuracy_score, f1_score

from benchmarks.drawing import figure
from unlearnkit.cases.data_folder import folder
from unlearnkit.core.errors import InputError
from unlearnkit.linear import RemovableLogisticRegression
from unlearnkit.linear.design_matrix import without_columns
from unlearnkit.linear.regularized_risk import Change, Risk
from unlearnkit.linear.removal import newton_removal
from unlearnkit.linear.risk_minimizer import minimize_risk

OUT = Path(__file__).parents[1] / "docs" / "results"
ALPHA, HEAVY = 1.0, 500
"""Penalty; features are drawn among those of so many largest weights."""

COUNTS = (1, 2, 5, 10, 20, 50, 100)
WAYS = ("no update", "first order", "second order", "retrained")
PAGE = """# Features of Android malware removed from a linear model

Made by `python -m experiments drebin --write`: Drebin (Arp et al., NDSS 2014) as prepared by
Warnecke et al., {rows:,} training and {tests:,} test programs, {columns:,} binary features,
L2-logistic regression with alpha {alpha:g}. A request removes 1 to 100 features, drawn among the
{heavy} with the largest weights; means of {draws} draws. Test rows lose the features too. Nothing
here is a test.

Residual: norm of the gradient on the corrected data, 0 for a retrained model. Bound: what the
certificate charges for the second-order step. First order: the step against the gradient that
lowers the loss most in the model of second order. F1: of malware, {share:.3f} of the test programs.
Seconds: of the processor; other programs shared the machine.

![Bounds and measured residuals](drebin.svg)

| features | way | residual | bound | distance to retrained weights | accuracy | F1 | seconds |
|---|---|---|---|---|---|---|---|
{table}

The residual of the second-order step is at most its bound in {held} of {total} draws. Removed
features have a weight of exactly 0 after it in {zero} of {total}.
"""


def malware(part: str) -> tuple[sp.csr_array, np.ndarray]:
    """Return programs by features and labels, 1 for malware, of ``train`` or ``test``.

    Args:
        part: Which rows.

    Returns:
        Rows and labels.

    Raises:
        InputError: If the data are not there.
    """
    place = folder("drebin")
    if place is None or not (place / f"x_{part}.npz").exists():
        raise InputError(f"drebin: UNLEARNKIT_DATA names no folder with drebin/x_{part}.npz")
    x = sp.csr_array(sp.load_npz(place / f"x_{part}.npz").astype(np.float64))
    return x, (np.load(place / f"y_{part}.npy") > 0).astype(int)


def first_order(after: Risk, w: np.ndarray) -> np.ndarray:
    """Return the weights after the best step against the gradient."""
    slope = after.gradient(w)
    bend = (slope * after.product(after.blocks(w), slope)).sum()
    return w - slope * (slope**2).sum() / bend


def measure(draws: int) -> tuple[dict[tuple[int, str], list[dict[str, float]]], dict[str, int]]:
    """Return the numbers of each draw by number of features and way, and counts of all draws."""
    x, y = malware("train")
    model = RemovableLogisticRegression(ALPHA, penalize_intercept=True).fit(x, y)
    state, risk = model._state, model._risk
    seen, told = malware("test")
    heavy = np.argsort(-abs(state.w[0, :-1]))[:HEAVY]
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    counts = {"held": 0, "zero": 0, "total": 0}
    for count in COUNTS:
        for draw in range(draws):
            chosen = np.random.default_rng([count, draw]).choice(heavy, count, replace=False)
            after = replace(risk, x=without_columns(risk.x, chosen.tolist()))
            started = time.process_time()
            done = newton_removal(state, after, Change(risk, after), corrected=True)
            ended = time.process_time()
            first = first_order(after, state.w)
            middle = time.process_time()
            again = minimize_risk(after, state.w * 0, steps=1000).w
            steps = (0.0, middle - ended, ended - started, time.process_time() - middle)
            took = dict(zip(WAYS, steps, strict=True))
            test = without_columns(seen, chosen.tolist())
            weights = dict(zip(WAYS, (state.w, first, done.w, again), strict=True))
            for way, w in weights.items():
                answers = (test @ w[0, :-1] + w[0, -1] > 0).astype(int)
                found[count, way].append(
                    {
                        "residual": float(np.linalg.norm(after.gradient(w))),
                        "bound": done.budget_spent,
                        "distance": float(np.linalg.norm(w - again)),
                        "accuracy": accuracy_score(told, answers),
                        "f1": f1_score(told, answers),
                        "seconds": took[way],
                    }
                )
            last = found[count, "second order"][-1]
            counts["held"] += last["residual"] <= last["bound"]
            counts["zero"] += bool((done.w[0, chosen] == 0).all())
            counts["total"] += 1
    return found, counts


def row(count: int, way: str, draws: list[dict[str, float]]) -> str:
    """Return a line of the table."""
    m = {n: statistics.mean(d[n] for d in draws) for n in draws[0]}
    bound = f"{m['bound']:.3g}" if way == "second order" else ""
    seconds = f"{m['seconds']:.3f}" if m["seconds"] else ""
    return (
        f"| {count} | {way} | {m['residual']:.2g} | {bound} | {m['distance']:.2g} |"
        f" {m['accuracy']:.4f} | {m['f1']:.3f} | {seconds} |"
    )


def draw(found: dict[tuple[int, str], list[dict[str, float]]], path: Path) -> None:
    """Draw measured residuals of each draw and the bounds over the number of features."""
    with figure(path, 6, 3.5) as drawn:
        axes = drawn.subplots()
        marks = {"no update": "x", "first order": "s", "second order": "o"}
        for number, (way, mark) in enumerate(marks.items()):
            points = [(c, d["residual"]) for c in COUNTS for d in found[c, way]]
            axes.loglog(*zip(*points, strict=True), f"C{number}{mark}", label=f"{way}: measured")
        points = [(c, d["bound"]) for c in COUNTS for d in found[c, "second order"]]
        axes.loglog(*zip(*points, strict=True), "C2_", markersize=12, label="second order: bound")
        axes.set_xlabel("features of Drebin removed at once")
        axes.set_ylabel("gradient residual norm")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)


def main() -> None:
    """Measure, print, and write the page and its plot if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found, counts = measure(given.draws)
    (x, _), (_, told) = malware("train"), malware("test")
    text = PAGE.format(
        rows=x.shape[0],
        columns=x.shape[1],
        tests=len(told),
        alpha=ALPHA,
        heavy=HEAVY,
        draws=given.draws,
        share=told.mean(),
        table="\n".join(row(c, way, found[c, way]) for c in COUNTS for way in WAYS),
        **counts,
    )
    print(text)
    if given.write:
        (OUT / "drebin.md").write_text(text, "utf-8")
        draw(found, OUT / "drebin.svg")
