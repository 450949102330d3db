"""How the decision table of ``auto`` is ordered: by kept results of its candidates."""

import csv
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unlearnkit.auto.decision_table import Candidate, Rule, load_decision_table

OUT = Path(__file__).parents[1] / "docs" / "results"
SEEDS, ORACLES = 3, 5
CLOSED, POINTS, COST = 0.95, 1.0, 0.2
"""The goal: least share closed, most points of retained accuracy, most of retraining's cost."""


LINES = {"class": "shallow_class", "mislabelled_tenth": "shallow", "random_tenth": "shallow"}
"""The line of the decision table that a request of digits falls on."""


def _run(**run: float) -> dict[str, Any]:
    return {"run": run}


POOL: dict[str, tuple[str, dict[str, Any]]] = {
    "warm_restart": ("warm_restart", {}),
    "shrink_perturb renew=0.2": ("shrink_perturb", {"renew": 0.2, **_run(lr=2.0)}),
    "shrink_perturb renew=0.3": ("shrink_perturb", {"renew": 0.3, **_run(lr=2.0)}),
    "shrink_perturb renew=0.4": ("shrink_perturb", {"renew": 0.4, **_run(lr=2.0)}),
    "shrink_perturb renew=0.5": ("shrink_perturb", {"renew": 0.5, **_run(lr=2.0)}),
    "shrink_perturb renew=0.5 lr=3": ("shrink_perturb", {"renew": 0.5, **_run(lr=3.0)}),
    "relabel_restart": ("relabel_restart", {}),
    "relabel_restart renew=0.2 early=0.05": (
        "relabel_restart",
        {"renew": 0.2, "early": 0.05, **_run(shrink=0.0)},
    ),
    "relabel_restart renew=0.3 early=0.05": (
        "relabel_restart",
        {"renew": 0.3, "early": 0.05, **_run(shrink=0.0)},
    ),
    "relabel_restart shrink=0": ("relabel_restart", _run(shrink=0.0)),
    "relabel_restart shrink=0.25 lr=4": ("relabel_restart", _run(shrink=0.25, lr=4.0)),
    "ssd": ("ssd", {}),
    "gradient_ascent": ("gradient_ascent", {}),
    "finetune": ("finetune", {}),
    "relabel": ("relabel", {}),
    "scrub": ("scrub", {}),
    "neggrad_plus": ("neggrad_plus", {}),
    "l1_sparse": ("l1_sparse", {}),
    "amnesiac": ("amnesiac", {}),
    "bad_teacher": ("bad_teacher", {}),
    "del_localized": ("del_localized", {}),
    "del_localized lr=4": ("del_localized", _run(lr=4.0)),
    "del_localized budget=0.5 keep=0.5": (
        "del_localized",
        {"mask": {"budget": 0.5, "granularity": "parameter"}, "keep": 0.5, **_run(lr=4.0)},
    ),
}
"""What may be chosen: a method with settings, by the name that results have. Without kept results a
candidate takes no part."""


@dataclass(frozen=True)
class Measured:
    """One candidate on one case; a number a seed."""

    case: str
    family: str
    kind: str
    line: str
    """Of the decision table."""

    candidate: str
    closed: tuple[float | None, ...]
    """None where the original is as near to the oracles as they are to each other."""

    retained: tuple[float, ...]
    """Retained accuracy minus the oracles' mean, in points; for regression minus the error, in
    hundredths of the targets' deviation."""

    test: tuple[float, ...]
    cost: tuple[float, ...]
    """Share of retraining's."""

    @property
    def score(self) -> float | None:
        """Return how near to 1 the closed share is, on average; 0 where a limit is broken."""
        known = [1 - abs(1 - c) for c in self.closed if c is not None]
        if not known:
            return None
        return max(statistics.mean(known), -1.0) if self.kept else -1.0

    @property
    def kept(self) -> bool:
        """Return whether retained accuracy and cost are within their limits, on average."""
        apart = abs(statistics.mean(self.retained))
        return apart <= POINTS and statistics.mean(self.cost) <= COST


def ranked(lines: Iterable[Measured]) -> list[tuple[str, float]]:
    """Return candidates with their mean score over cases, best first.

    A case on which a candidate breaks the limits of retained accuracy or cost counts -1, as does
    one where it went away from retraining by more than the original's distance.

    Args:
        lines: Of the cases to rank by.

    Returns:
        Names and scores; cases without headroom do not count.
    """
    scores: dict[str, list[float]] = {}
    for x in lines:
        if x.score is not None:
            scores.setdefault(x.candidate, []).append(x.score)
    means = {name: statistics.mean(s) for name, s in scores.items()}
    return sorted(means.items(), key=lambda item: -item[1])


@dataclass(frozen=True)
class Card:
    """A candidate as many models of it are told from as many retrained ones."""

    family: str
    line: str
    request: str
    candidate: str
    """In words."""

    far: float
    """KLoM of the forget rows, in nats: 0.14 between two sets of retrained models, 4.3 at most."""

    @property
    def where(self) -> tuple[str, str]:
        """Return family and request."""
        return self.family, self.request


OWN_NAME = {"finetune": "warm_restart", "relabel": "relabel_restart"}
"""What became of two defaults that ``method_cards.csv`` speaks of."""

RESTARTS = {
    *("amnesiac", "bad_teacher", "del_localized", "l1_sparse", "neggrad_plus", "salun", "scrub"),
}
"""Methods whose default was a restart when ``method_cards.csv`` was made."""


def kept_cards() -> list[Card]:
    """Return the cards of candidates with settings of their own, and of methods at defaults.

    ``method_cards.csv`` was made when restarts were the default of published methods: two of its
    lines are methods of their own by now, bit for bit, and those of ``RESTARTS`` are no more.
    """
    with (OUT / "auto_cards.csv").open(encoding="utf-8") as file:
        own = [
            Card(x["family"], x["line"], x["request"], x["candidate"], float(x["klom_forget"]))
            for x in csv.DictReader(file)
        ]
    with (OUT / "method_cards.csv").open(encoding="utf-8") as file:
        plain = [
            Card(
                "digits",
                LINES[x["request"]],
                x["request"],
                OWN_NAME.get(x["method"], x["method"]),
                float(x["mean"]),
            )
            for x in csv.DictReader(file)
            if x["kind"] == "method"
            and x["metric"] == "klom_forget"
            and x["method"] not in RESTARTS
        ]
    return own + plain


def kept_results() -> list[Measured]:
    """Return the results that the shipped table rests on."""
    held = json.loads((OUT / "auto.json").read_text(encoding="utf-8"))
    numbers = ("closed", "retained", "test", "cost")
    return [Measured(**{k: tuple(v) if k in numbers else v for k, v in x.items()}) for x in held]


def rounded(x: Measured) -> dict[str, Any]:
    """Return a measurement for keeping, numbers to six places."""
    return {
        k: [None if n is None else round(n, 6) for n in v] if isinstance(v, tuple) else v
        for k, v in asdict(x).items()
    }


TRIES = 4
"""Most approximate candidates of a line."""

TIE = round(1 - CLOSED, 6)
"""Candidates within this of the best score reach the goal alike: the strong audit orders them."""

RETRAIN = Candidate(method="retrain", cost=1.0, exact=True)
"""Comes last in every line that has results."""


def derived(line: Rule, measured: Sequence[Measured], judged: Sequence[Card]) -> Rule | None:
    """Return a line with the candidates that results give it; None where there are no results.

    They are the best of each method by ``ranked``, with untrained weights and without because not
    every case gives these, at most ``TRIES`` of a score above 0, then retraining. Those whose score
    is within ``TIE`` of the best come in the order of their cards, where all of them have some.
    Costs are the largest measured, rounded up to hundredths.
    """
    mine = [x for x in measured if x.line == line.id]
    found: dict[tuple[str, bool], Candidate] = {}
    scores: list[float] = []
    for name, score in ranked(mine):
        method, settings = POOL[name]
        kind = (method, "renew" in settings)
        if score <= 0 or len(found) == TRIES or kind in found:
            continue
        dearest = max(max(x.cost) for x in mine if x.candidate == name)
        cost = math.ceil(100 * dearest) / 100
        found[kind] = Candidate(method=method, settings=settings, cost=cost)
        scores.append(score)
    if not found:
        return None
    tied = sum(scores[0] - score <= TIE for score in scores)
    order = [*found.values()]
    order[:tied] = _by_cards(order[:tied], [x for x in judged if x.line == line.id])
    return line.model_copy(update={"candidates": (*order, RETRAIN)})


def _by_cards(tied: list[Candidate], judged: Sequence[Card]) -> list[Candidate]:
    """Return candidates by their mean KLoM over the requests on which all of them have a card."""
    far = [{x.where: x.far for x in judged if x.candidate == c.words()} for c in tied]
    common = set.intersection(*map(set, far))
    if not common:
        return tied
    means = [statistics.mean(one[where] for where in common) for one in far]
    return [tied[i] for i in sorted(range(len(tied)), key=lambda i: means[i])]


def without(
    family: str | None, measured: Sequence[Measured], judged: Sequence[Card] | None = None
) -> list[Rule]:
    """Return the table as the results of all other families make it.

    A line that they say nothing about is left out, so that a later one holds in its place; lines
    that never had results stay as they are.
    """
    rest = [x for x in measured if x.family != family]
    cards = [x for x in (kept_cards() if judged is None else judged) if x.family != family]
    known = {x.line for x in measured}
    lines = [
        derived(line, rest, cards) if line.id in known else line for line in load_decision_table()
    ]
    return [line for line in lines if line is not None]
