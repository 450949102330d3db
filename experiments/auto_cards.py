"""How near the candidates of auto's decision table come to retraining, told by many models.

    python -m experiments auto_cards [--write]

The fast results that order the table compare a few models with a few oracles. Here each candidate
of a line is judged on small cases by the strong audit: 64 models beside 64 retrained ones. First
candidates come first; what is in ``--store`` is not measured again. With ``--write`` what is there
goes to ``docs/results/auto_cards.csv``.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.auto_order import POOL
from unlearnkit.auto.decision_table import Candidate, load_decision_table
from unlearnkit.cache import Cache
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.spec import Study, make_study
from unlearnkit.studies.table.build_table import show

OUT = Path(__file__).parents[1] / "docs" / "results" / "auto_cards.csv"
GROUNDS = (
    ("digits", "shallow_class", "digits", "class"),
    ("digits", "shallow", "digits", "mislabelled_tenth"),
    ("digits", "shallow", "digits", "random_tenth"),
    ("breast_cancer", "shallow_class", "breast_cancer", "class"),
    ("wine", "shallow_class", "experiments.small_cases:wine", "class=1"),
)
"""Family, line of the table, case, and a request that falls on the line."""

MODELS = 64
METRICS = (
    *("klom_forget", "ulira_auc", "epsilon_exposed", "ensemble_margin_shift"),
    *("ensemble_accuracy_forget", "ensemble_accuracy_retain", "ensemble_accuracy_test"),
    "cost_ratio",
)
HEAD = ("family", "line", "request", "candidate", "models", *METRICS)
BESIDE = {"shallow_class": ("relabel_restart renew=0.2 early=0.05",)}
"""Of the pool, by line: candidates of the line for deeper networks, to be compared."""

Ground = tuple[str, str, str, str]


def wanted() -> list[tuple[Ground, Candidate]]:
    """Return where each candidate is measured, the first ones first.

    Retraining needs no card, and methods at their defaults have theirs in ``method_cards.csv``.
    """
    lines = {line.id: line.candidates for line in load_decision_table()}
    each = []
    for ground in GROUNDS:
        family, line, *_ = ground
        more = [
            Candidate(method=m, settings=s, cost=1)
            for m, s in (POOL[n] for n in BESIDE.get(line, ()))
        ]
        some = [c for c in (*lines[line], *more) if not c.exact]
        each.append([(ground, c) for c in some if c.settings or family != "digits"])
    return [one for rank in itertools.zip_longest(*each) for one in rank if one is not None]


def study(ground: Ground, candidate: Candidate) -> Study:
    """Return the study of one candidate on one case."""
    family, line, case, request = ground
    method = {candidate.method: {"settings": candidate.settings}}
    return make_study(
        {
            "name": f"auto {family} {line}",
            "cases": [case],
            "requests": [request],
            "methods": [method],
            "seeds": 1,
            "tier": "strong",
            "models": MODELS,
        }
    )


def card(ground: Ground, candidate: Candidate, store: Store) -> Iterator[list[str]]:
    """Yield what is kept of a candidate, where it was measured: under ``HEAD``."""
    found = show(study(ground, candidate), store, METRICS)
    if found.done:
        mine = next(n for n in found.blocks[0].lines if n.kind == "method")
        numbers = [mine.cells[m].mean for m in METRICS]
        told = ["" if v is None else f"{v:.4f}" for v in numbers]
        yield [ground[0], ground[1], ground[3], candidate.words(), str(MODELS), *told]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=Path("runs/auto_cards.sqlite"))
    parser.add_argument("--kept", action="store_true", help="measure nothing anew")
    parser.add_argument("--write", action="store_true", help=f"write docs/results/{OUT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with Store(asked.store) as store:
        for ground, candidate in wanted():
            if not asked.kept:
                run(study(ground, candidate), store, Cache())
            for row in card(ground, candidate, store):
                print(*row, flush=True)
                rows.append(row)
    if asked.write:
        with OUT.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([HEAD, *sorted(rows)])
