"""What a deletion costs in shards and slices (SISA), and what shards cost in accuracy.

    python -m experiments sisa

Each line trains in shards, then removes random single rows one after another. A request's cost is
counted (rows times passes) and timed, as a share of training all shards from the start, and
compared with what the sizes of shards and the paper's formula for slices say: ``sum_s (n_s / N)^2``
times ``2/3 + 1/(3R)``. The target is ``1.1 / shards``. Accuracy is that of the test rows, over
seeds, compared with one model trained on all rows.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

import unlearnkit as uk
from benchmarks.linear import adult
from unlearnkit.sisa import ShardedClassifier, ShardedModel, ShardRemoval

OUT = Path("docs/results/sisa")
COMMAND = "python -m experiments sisa"
FEW = 4000
"""Rows of Adult that boosting is trained on: it takes long."""

Score = Callable[[], float]
Remove = Callable[[int], ShardRemoval]


@dataclass(frozen=True)
class Line:
    """One way to train in shards."""

    data: str
    model: str
    rows: int
    shards: int
    slices: int
    requests: int
    share: float
    """Mean cost of a request, counted."""

    share_error: float
    """Its standard error."""

    expected: float
    seconds_share: float
    """Mean time of a request over the time of training all shards."""

    accuracy: tuple[float, ...]
    """One a seed."""

    one_model: tuple[float, ...]

    @property
    def name(self) -> str:
        """Return what tells lines apart."""
        return f"{self.data}, {self.model}, {self.shards} x {self.slices}"


def digits(seed: int, shards: int, slices: int, model: str) -> tuple[Any, Score, Remove, int]:
    """Return a trained network in shards, its accuracy and removal, and its rows."""
    del model
    case = uk.catalog.cases()["digits"].make()
    place = uk.Runtime(seed=seed)
    done = ShardedModel(case, shards=shards, slices=slices, rt=place).fit()
    assert case.test is not None

    def score() -> float:
        with torch.inference_mode():
            out = done.network()(case.test.x)
        return float((out.argmax(1) == case.test.y).float().mean())

    return done._training, score, lambda row: done.unlearn(uk.Rows(row)), len(case.train or ())


TREES: dict[str, Callable[[], Any]] = {
    "decision tree": lambda: DecisionTreeClassifier(min_samples_leaf=20),
    "gradient boosting, 60 trees": lambda: GradientBoostingClassifier(n_estimators=60),
}


def trees(seed: int, shards: int, slices: int, model: str) -> tuple[Any, Score, Remove, int]:
    """Return trees in shards on Adult; the same as ``digits``."""
    found = adult()
    assert found is not None
    x, x_test, y, y_test = train_test_split(*found, test_size=0.2, random_state=0)
    x, y = (x[:FEW], y[:FEW]) if "boosting" in model else (x, y)
    done = ShardedClassifier(TREES[model](), shards=shards, slices=slices, seed=seed).fit(x, y)
    return (
        done._training,
        lambda: float(done.score(x_test, y_test)),
        lambda row: done.unlearn([row]),
        len(y),
    )


PLANS = [
    ("digits", "perceptron", digits, 3, [(5, 1), (5, 4), (10, 1), (20, 1)]),
    ("Adult", "decision tree", trees, 3, [(5, 1), (10, 1), (20, 1)]),
    ("Adult", "gradient boosting, 60 trees", trees, 1, [(5, 1), (5, 4), (20, 1)]),
]


def measure(plan: tuple[Any, ...], shards: int, slices: int, requests: int) -> Line:
    """Return one line: trained for each seed, requests on the first."""
    data, model, make, seeds, _ = plan
    accuracy, one, shares, times, expected, rows, full = [], [], [], [], 0.0, 0, 0.0
    for seed in range(seeds):
        start = time.perf_counter()
        training, score, remove, rows = make(seed, shards, slices, model)
        full = time.perf_counter() - start
        accuracy.append(score())
        one.append(make(seed, 1, 1, model)[1]())
        if seed:
            continue
        sizes = np.bincount(training.state.plan.shard, minlength=shards)
        saved = 2 / 3 + 1 / (3 * slices)
        expected = float((sizes**2).sum() / rows**2 * saved)
        for row in np.random.default_rng(0).permutation(rows)[:requests].tolist():
            done = remove(row)
            shares.append(done.share)
            times.append(done.seconds / full)
    return Line(
        data, model, rows, shards, slices, requests,
        share=float(np.mean(shares)),
        share_error=float(np.std(shares) / len(shares) ** 0.5),
        expected=expected,
        seconds_share=float(np.mean(times)),
        accuracy=tuple(accuracy),
        one_model=tuple(one),
    )  # fmt: skip


def page(lines: list[Line]) -> str:
    """Return the page of results."""
    met = sum(x.share <= 1.1 / x.shards for x in lines)
    head = (
        "# Training in shards and slices\n\n"
        f"Made by `{COMMAND}`. Random single rows are removed one after another. Cost: rows times"
        " passes that are trained again, as a share of training all shards from the start, mean"
        " with its standard error. Expected: from the sizes of the shards, and `2/3 + 1/(3R)` for R"
        " slices (Bourtoule et al. 2021, section V). Time: the same share in seconds, of one run;"
        " other programs shared the machine. Accuracy: on test rows, mean over seeds, and of one"
        " model trained on all rows.\n\n"
        f"The target, at most 1.1 / shards, is met in {met} of {len(lines)} lines.\n\n"
        "| Data | Model | Rows | Shards | Slices | Requests | Cost | Expected | Target | Time |"
        " Accuracy | One model | Lost |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    body = "".join(
        f"| {x.data} | {x.model} | {x.rows:,} | {x.shards} | {x.slices} | {x.requests} |"
        f" {x.share:.3f} ± {x.share_error:.3f} | {x.expected:.3f} | {1.1 / x.shards:.3f} |"
        f" {x.seconds_share:.3f} | {np.mean(x.accuracy):.3f} | {np.mean(x.one_model):.3f} |"
        f" {np.mean(x.one_model) - np.mean(x.accuracy):+.3f} |\n"
        for x in lines
    )
    return f"{head}{body}"


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.out.with_suffix(".json")
    kept: Mapping[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    lines = []
    for plan in PLANS:
        for shards, slices in plan[-1]:
            name = f"{plan[0]}, {plan[1]}, {shards} x {slices}"
            facts = kept.get(name) or asdict(measure(plan, shards, slices, args.requests))
            lines.append(Line(**facts))
            kept = {**kept, name: facts}
            path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            args.out.with_suffix(".md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
