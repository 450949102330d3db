"""How well ``auto`` chooses on cases that played no part in its table.

Run with ``python -m benchmarks.auto [--write]``. Every candidate is measured on every small case;
then each family of cases is left out in turn, the table's order is made anew from the other
families by ``ranked``, and ``auto`` runs with it on the cases left out.
"""

import argparse
import json
import math
import platform
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unlearnkit as uk
from benchmarks.small_cases import SMALL, Small
from unlearnkit.auditing.rows import closed_share
from unlearnkit.auditing.splits import choose as chosen_rows
from unlearnkit.auto.driver import choose
from unlearnkit.auto.situation import look
from unlearnkit.auto.table import Candidate, Line, table
from unlearnkit.cases.builtin import Asked
from unlearnkit.core.evidence import Evidence, Who
from unlearnkit.oracles import Oracle
from unlearnkit.unlearning import frozen_copy

OUT = Path(__file__).parents[1] / "docs" / "results"
SEEDS, ORACLES = 3, 5
CLOSED, POINTS, COST = 0.95, 1.0, 0.2
"""The goal: least share closed, most points of retained accuracy, most of retraining's cost."""


def _run(**run: float) -> dict[str, Any]:
    return {"run": run}


POOL: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "finetune renew=0.2": ("finetune", {"renew": 0.2, **_run(shrink=0.0)}),
    "finetune renew=0.3": ("finetune", {"renew": 0.3, **_run(shrink=0.0)}),
    "finetune renew=0.4": ("finetune", {"renew": 0.4, **_run(shrink=0.0)}),
    "finetune renew=0.5": ("finetune", {"renew": 0.5, **_run(shrink=0.0)}),
    "finetune renew=0.5 lr=3": ("finetune", {"renew": 0.5, **_run(shrink=0.0, lr=3.0)}),
    "relabel": ("relabel", {}),
    "relabel renew=0.2 early=0.05": (
        "relabel",
        {"renew": 0.2, "early": 0.05, **_run(shrink=0.0)},
    ),
    "relabel renew=0.3 early=0.05": (
        "relabel",
        {"renew": 0.3, "early": 0.05, **_run(shrink=0.0)},
    ),
    "relabel shrink=0": ("relabel", _run(shrink=0.0)),
    "relabel shrink=0.25 lr=4": ("relabel", _run(shrink=0.25, lr=4.0)),
    "scrub": ("scrub", {}),
    "scrub shrink=0": ("scrub", _run(shrink=0.0)),
    "neggrad_plus": ("neggrad_plus", {}),
    "neggrad_plus shrink=0": ("neggrad_plus", _run(shrink=0.0)),
    "l1_sparse": ("l1_sparse", {}),
    "ssd": ("ssd", {}),
    "gradient_ascent": ("gradient_ascent", {}),
    "amnesiac": ("amnesiac", {}),
    "amnesiac shrink=0": ("amnesiac", _run(shrink=0.0)),
    "bad_teacher": ("bad_teacher", {}),
    "del_localized": ("del_localized", {}),
    "del_localized lr=3": ("del_localized", _run(lr=3.0, share=0.17, shrink=0.0)),
    "del_localized budget=0.5 keep=0.5": (
        "del_localized",
        {
            "mask": {"budget": 0.5, "granularity": "parameter"},
            "keep": 0.5,
            **_run(lr=4.0, share=0.17, shrink=0.0),
        },
    ),
}
"""What may be chosen: a method with settings, by the name that results have."""


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
class Ground:
    """A small case with its originals and oracles."""

    small: Small
    asked: Asked
    originals: list[nn.Module]
    truth: Oracle

    @classmethod
    def of(cls, small: Small) -> "Ground":
        """Train what a case needs, unless it is in the cache."""
        asked = small.make()
        originals = [uk.train_original(asked.case, seed=s).model for s in range(SEEDS)]
        truth = uk.oracle(asked.case, asked.request, seeds=ORACLES)
        return cls(small, asked, originals, truth)

    def measured(self, name: str, line: str, done: Sequence[uk.Unlearned]) -> Measured:
        """Return what a candidate did: run s started from the original of seed s."""
        found = [self._one(d) for d in done]
        closed, retained, test, cost = zip(*found, strict=True)
        small = self.small
        return Measured(
            small.name, small.family, small.kind, line, name, closed, retained, test, cost
        )

    def _one(self, done: uk.Unlearned) -> tuple[float | None, float, float, float]:
        case, rt = self.asked.case, uk.Runtime()
        parts = case.partition(self.asked.request)
        assert parts.retain is not None
        assert case.recipe is not None
        models = {"original": done.original, "unlearned": done.model}
        models |= {f"oracle/{k}": m for k, m in enumerate(self.truth.models)}
        e = Evidence(models, chosen_rows(case, parts, rt).views, case.task, rt)
        known = uk.catalog.metrics()
        distance = next(known[m] for m in ("js_forget", "divergence_forget") if known[m].serves(e))
        between = [distance(e.seat(Who.ORACLE, k)).value for k in range(e.oracles)]
        before = distance(e.seat(Who.ORIGINAL)).value
        retrained = 3 * case.recipe.epochs * len(parts.retain)
        return (
            closed_share(distance(e).value, before, between),
            self._gap(e, "retain"),
            self._gap(e, "test"),
            done.cost.work / retrained,
        )

    @staticmethod
    def _gap(e: Evidence, split: str) -> float:
        known = uk.catalog.metrics()
        metric = known[f"accuracy_{split}"]
        sign = 100.0
        if not metric.serves(e):
            metric, sign = known[f"error_{split}"], -100.0
        oracles = [metric(e.seat(Who.ORACLE, k)).value for k in range(e.oracles)]
        return sign * (metric(e).value - statistics.mean(oracles))


def measure(grounds: Iterable[Ground]) -> Iterator[Measured]:
    """Yield every candidate on every case."""
    for ground in grounds:
        line = line_of(ground)
        for name, (method, settings) in POOL.items():
            yield ground.measured(name, line, list(_runs(ground, uk.method(method, **settings))))


def _runs(ground: Ground, method: uk.Method) -> Iterator[uk.Unlearned]:
    asked = ground.asked
    for seed, model in enumerate(ground.originals):
        yield uk.unlearn(model, asked.case, asked.request, method, uk.Runtime(seed=seed))


def told(x: Measured) -> str:
    """Return a measurement in a line."""
    closed = " ".join("    -" if c is None else f"{c:5.2f}" for c in x.closed)
    gaps = f"{statistics.mean(x.retained):+5.2f} {statistics.mean(x.test):+5.2f}"
    return f"{x.case:22} {x.candidate:26} {closed}  {gaps}  {statistics.mean(x.cost):.3f}"


def line_of(ground: Ground) -> str:
    """Return the line of the decision table that a case falls on."""
    case, request = ground.asked.case, ground.asked.request
    parts, rt = case.partition(request), uk.Runtime()
    original = frozen_copy(ground.originals[0], case, parts, rt)
    seen = look(original, case, request, parts, rt)
    return next(line.id for line in table() if seen.fits(line.when))


TRIES = 4
"""Most approximate candidates of a line."""

RETRAIN = Candidate(method="retrain", cost=1.0, exact=True)
"""Comes last in every line that has results."""


def derived(line: Line, measured: Sequence[Measured]) -> Line | None:
    """Return a line with the candidates that results give it; None where there are no results.

    They are the best of each method by ``ranked``, with untrained weights and without because not
    every case gives these, at most ``TRIES`` of a score above 0, then retraining. Costs are the
    largest measured, rounded up to hundredths.
    """
    mine = [x for x in measured if x.line == line.id]
    found: dict[tuple[str, bool], Candidate] = {}
    for name, score in ranked(mine):
        method, settings = POOL[name]
        kind = (method, "renew" in settings)
        if score <= 0 or len(found) == TRIES or kind in found:
            continue
        dearest = max(max(x.cost) for x in mine if x.candidate == name)
        cost = math.ceil(100 * dearest) / 100
        found[kind] = Candidate(method=method, settings=settings, cost=cost)
    if not found:
        return None
    return line.model_copy(update={"candidates": (*found.values(), RETRAIN)})


def without(family: str | None, measured: Sequence[Measured]) -> list[Line]:
    """Return the table as the results of all other families make it.

    A line that they say nothing about is left out, so that a later one holds in its place; lines
    that never had results stay as they are.
    """
    rest = [x for x in measured if x.family != family]
    known = {x.line for x in measured}
    lines = [derived(line, rest) if line.id in known else line for line in table()]
    return [line for line in lines if line is not None]


@dataclass(frozen=True)
class Judged:
    """What ``auto`` did on a case that its table had never seen; a number a seed."""

    measured: Measured
    chosen: tuple[str, ...]
    tries: tuple[int, ...]
    passed: tuple[bool, ...]
    whole_cost: tuple[float, ...]
    """With all audits and the look beforehand."""

    @property
    def misses(self) -> list[str]:
        """Return which parts of the goal are missed."""
        x, missed = self.measured, []
        known = [c for c in x.closed if c is not None]
        if known and statistics.mean(known) < CLOSED:
            missed.append("closed")
        if abs(statistics.mean(x.retained)) > POINTS:
            missed.append("retained")
        if statistics.mean(x.cost) > COST:
            missed.append("cost")
        if not all(self.passed):
            missed.append("audit")
        return missed


def judge(ground: Ground, measured: Sequence[Measured]) -> Judged:
    """Run ``auto`` on a case with the table that the other families make."""
    lines, asked = without(ground.small.family, measured), ground.asked
    done = []
    for seed, model in enumerate(ground.originals):
        rt = uk.Runtime(seed=seed)
        try:
            done.append(choose(model, asked.case, asked.request, uk.Auto(), rt, lines))
        except uk.AutoFailedError as e:
            done.append(e.best)
    found = ground.measured("auto", line_of(ground), done)
    audits = [sum(t.audit for t in d.choice.tried) / d.cost.work for d in done]
    return Judged(
        measured=replace(
            found, cost=tuple(c * (1 - a) for c, a in zip(found.cost, audits, strict=True))
        ),
        chosen=tuple(d.choice.chosen for d in done),
        tries=tuple(sum(t.ran for t in d.choice.tried) for d in done),
        passed=tuple(d.choice.passed for d in done),
        whole_cost=found.cost,
    )


def told_judged(x: Judged) -> str:
    """Return a judgement as a row of a Markdown table."""
    m = x.measured
    closed = ", ".join("-" if c is None else f"{c:.2f}" for c in m.closed)
    known = [c for c in m.closed if c is not None]
    mean = f"{statistics.mean(known):.3f}" if known else "-"
    chosen = ", ".join(dict.fromkeys(x.chosen))
    missed = ", ".join(x.misses) or "none"
    return (
        f"| {m.case} | {m.line} | {chosen} | {max(x.tries)} | {mean} | {closed} |"
        f" {statistics.mean(m.retained):+.2f} | {statistics.mean(m.test):+.2f} |"
        f" {statistics.mean(m.cost):.3f} | {statistics.mean(x.whole_cost):.3f} | {missed} |"
    )


def page(measured: Sequence[Measured], judged: Sequence[Judged]) -> str:
    """Return the result as Markdown."""
    met = [x for x in judged if not x.misses]
    parts = ("closed", "retained", "cost", "audit")
    counts = {part: sum(part in x.misses for x in judged) for part in parts}
    said = [
        "# How well auto chooses",
        "",
        f"Made by `python -m benchmarks.auto --write` (torch {torch.__version__},"
        f" {platform.machine()}); {SEEDS} seeds, each with an original of its own, {ORACLES}"
        " oracles.",
        "",
        "## On cases that were left out",
        "",
        "Each family of cases (one source of rows, all its networks and requests) is left out in"
        " turn. The order of every line of the decision table is made anew from the other families"
        f" by one rule: candidates ranked by the mean over cases of `1 - |1 - closed|`, where a"
        f" case counts -1 if retained accuracy is more than {POINTS:g} point from the oracles' or"
        f" the cost is above {COST:g}; the best of each method, with untrained"
        f" weights and without, at most {TRIES}; then retraining."
        " `auto` then runs on the family left out, audits and falls back. The lines themselves,"
        " their circumstances, the pool of candidates and the threshold for odd rows were chosen"
        " with all cases in view, so this is a judgement of the order, not of those.",
        "",
        f"Goal: a closed share of at least {CLOSED:g} with retained accuracy within {POINTS:g}"
        f" point at a cost of at most {COST:g}, on every case. **Reached on {len(met)} of"
        f" {len(judged)}.** Missed by: "
        + ", ".join(f"{part} {n}" for part, n in counts.items())
        + ".",
        "",
        *LIMITS,
        "",
        "Closed: the share of the original's distance to the oracles on forget rows"
        " (Jensen-Shannon; for regression the task's divergence) that is gone; - where the original"
        " is as near to the oracles as they are to each other. Gaps in points of accuracy; for"
        " regression in hundredths of the targets' deviation, an error above the oracles' counted"
        " as a minus. Cost: share of retraining's without the audits, which every method may need;"
        " whole: with them and the look beforehand, which is what `auto` reports as its cost.",
        "",
        "| case | line | chosen | most tries | closed | by seed | retained gap | test gap | cost |"
        " whole | goal missed by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(told_judged, judged),
        "",
        "## What the table rests on",
        "",
        "The mean score of each candidate on each line, all families in; the shipped order.",
    ]
    for line in dict.fromkeys(x.line for x in measured):
        mine = [x for x in measured if x.line == line]
        cases = list(dict.fromkeys(x.case for x in mine))
        said += [
            "",
            f"### {line}",
            "",
            f"| candidate | score | {' | '.join(cases)} |",
            f"|---|---|{'---|' * len(cases)}",
        ]
        for name, score in ranked(mine):
            cells = [
                _cell(next(x for x in mine if (x.case, x.candidate) == (c, name))) for c in cases
            ]
            said.append(f"| {name} | {score:.3f} | {' | '.join(cells)} |")
    return "\n".join(said) + "\n"


def _cell(x: Measured) -> str:
    known = [c for c in x.closed if c is not None]
    share = f"{statistics.mean(known):.2f}" if known else "-"
    return f"{share} ({statistics.mean(x.retained):+.1f})"


LIMITS = (
    "What limits it:",
    "",
    "- **Rows drawn at random.** The distance is small and made of a few rows that the original"
    " knows by heart; what a model without them would say there has to be trained anew. Tried"
    " beyond the defaults: no shrink, with rates of 2, 3, 4 and 6 times the recipe's; starting"
    " between the model and untrained weights (`renew`), at 0.2 to 0.7; starting afresh with the"
    " original as the teacher of the retained rows; averaging the weights of the last part of the"
    " run. `renew` 0.4 closes 0.83 to 1.03 of every random tenth, where the best default,"
    " l1_sparse, closes 0.54 to 0.82 and loses up to 2.9 points. More of it, or a higher rate,"
    " comes nearer on digits (0.90 at 0.5 and three times the rate) and loses more"
    " than a point of retained accuracy on the deep network and under Adam. Averaging changed"
    " nothing (digits 0.79 at `renew` 0.3 with it and without), teaching was worse (0.77 against"
    " 0.89).",
    "- **Overlapping classes** (the mixtures): candidates that keep retained accuracy on all other"
    " families lose 1.0 to 1.4 points there, and the fast audit, which sees damage from 2 points"
    " on, does not catch it.",
    "- **Regression**: with its only family left out, the line for it falls back on the one for"
    " rows; the retained error is then 0.02 deviations above the oracles', on test rows no worse.",
    "- **Ten patients of breast cancer**: the distance is so small that the share goes from 0.75 to"
    " -1.31 by seed; no candidate is steady there.",
    "- **The fast audit** refused once: with one seed of digits_deep/random all four candidates"
    " were accused, so that `auto` refused; the model that the error carries, the least accused,"
    " lies far from retraining. That candidate, half of the scalars reset at four times the rate,"
    " is what the shallow networks rank high and what a deep one does not bear. Passing the fast"
    " audit is no measure of distance, and it cannot see what is missing to 0.95.",
    "- **Cost**: the goal is judged without audits. With them `auto` costs 0.19 to 0.32 of"
    " retraining where the first choice stands: an audit weighs more the shorter a recipe is and"
    " the fewer rows stay.",
)
"""What the table shows, in words."""


def kept_results() -> list[Measured]:
    """Return the results that the shipped table rests on."""
    held = json.loads((OUT / "auto.json").read_text(encoding="utf-8"))
    numbers = ("closed", "retained", "test", "cost")
    return [Measured(**{k: tuple(v) if k in numbers else v for k, v in x.items()}) for x in held]


def main() -> None:
    """Measure, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/results/auto.md and .json")
    parser.add_argument("--kept", action="store_true", help="measure no candidate anew")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    grounds = [Ground.of(small) for small in SMALL]
    measured = kept_results() if asked.kept else []
    for x in () if asked.kept else measure(grounds):
        print(told(x), flush=True)
        measured.append(x)
    for line in without(None, measured):
        print(line.id, *(f"\n    {c.words()} cost {c.cost}" for c in line.candidates))
    judged = []
    for ground in grounds:
        judged.append(judge(ground, measured))
        print(told_judged(judged[-1]), flush=True)
    if asked.write:
        OUT.mkdir(parents=True, exist_ok=True)
        kept = ",\n".join(json.dumps(rounded(x)) for x in measured)
        (OUT / "auto.json").write_text(f"[\n{kept}\n]\n", encoding="utf-8")
        (OUT / "auto.md").write_text(page(measured, judged), encoding="utf-8")


def rounded(x: Measured) -> dict[str, Any]:
    """Return a measurement for keeping, numbers to six places."""
    return {
        k: [None if n is None else round(n, 6) for n in v] if isinstance(v, tuple) else v
        for k, v in asdict(x).items()
    }


if __name__ == "__main__":
    main()
