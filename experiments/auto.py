"""How well ``auto`` chooses on cases that played no part in its table.

Run with ``python -m experiments auto [--write]``. Every candidate is measured on every small case;
then each family of cases is left out in turn, the table's order is made anew from the other
families by ``ranked``, and ``auto`` runs with it on the cases left out.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

import unlearnkit as uk
from experiments.auto_order import (
    ORACLES,
    OUT,
    POOL,
    SEEDS,
    Measured,
    kept_results,
    rounded,
    without,
)
from experiments.auto_page import Judged, page, replayed, told_judged
from experiments.small_cases import SMALL, Small
from unlearnkit.auditing.splits import choose as chosen_rows
from unlearnkit.auto.case_profile import profile_case
from unlearnkit.auto.chooser import select_method
from unlearnkit.auto.decision_table import load_decision_table
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.oracles import Oracles
from unlearnkit.stats.oracle_gap import closed_share
from unlearnkit.unlearning.run_method import frozen_copy


@dataclass(frozen=True)
class Ground:
    """A small case with its originals and oracles."""

    small: Small
    asked: CaseWithRequest
    originals: list[nn.Module]
    truth: Oracles

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
        between = [distance(e.with_candidate(ModelRole.ORACLE, k)).value for k in range(e.oracles)]
        before = distance(e.with_candidate(ModelRole.ORIGINAL)).value
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
        oracles = [metric(e.with_candidate(ModelRole.ORACLE, k)).value for k in range(e.oracles)]
        return sign * (metric(e).value - statistics.mean(oracles))


def measure(grounds: Iterable[Ground], kept: Sequence[Measured]) -> Iterator[Measured]:
    """Yield every candidate on every case but for those that are kept."""
    there = {(x.case, x.candidate) for x in kept}
    for ground in grounds:
        line = line_of(ground)
        for name, (method, settings) in POOL.items():
            if (ground.small.name, name) in there:
                continue
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
    seen = profile_case(original, case, request, parts, rt)
    return next(line.id for line in load_decision_table() if seen.fits(line.when))


def judge(ground: Ground, measured: Sequence[Measured]) -> Judged:
    """Run ``auto`` on a case with the table that the other families make."""
    lines, asked = without(ground.small.family, measured), ground.asked
    done = []
    for seed, model in enumerate(ground.originals):
        rt = uk.Runtime(seed=seed)
        try:
            done.append(select_method(model, asked.case, asked.request, uk.Auto(), rt, lines))
        except uk.AutoFailedError as e:
            done.append(e.best)
    found = ground.measured("auto", line_of(ground), done)
    audits = [sum(t.audit for t in d.choice.candidates) / d.cost.work for d in done]
    return Judged(
        measured=replace(
            found, cost=tuple(c * (1 - a) for c, a in zip(found.cost, audits, strict=True))
        ),
        chosen=tuple(d.choice.candidate for d in done),
        tries=tuple(sum(t.ran for t in d.choice.candidates) for d in done),
        passed=tuple(d.choice.passed for d in done),
        whole_cost=found.cost,
    )


def main() -> None:
    """Measure, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/results/auto.md and .json")
    parser.add_argument("--kept", action="store_true", help="measure no candidate anew")
    parser.add_argument("--missing", action="store_true", help="measure those not kept, judge none")
    parser.add_argument("--replay", action="store_true", help="run nothing: read kept results")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept = asked.kept or asked.replay
    grounds = [] if asked.replay else [Ground.of(small) for small in SMALL]
    measured = kept_results() if kept or asked.missing else []
    for x in () if kept else measure(grounds, measured):
        print(told(x), flush=True)
        measured.append(x)
    for line in without(None, measured):
        print(line.id, *(f"\n    {c.words()} cost {c.cost}" for c in line.candidates))
    judged = []
    read = asked.replay or asked.missing
    for x in replayed(measured) if read else (judge(g, measured) for g in grounds):
        print(told_judged(x), flush=True)
        judged.append(x)
    if asked.write:
        lines = ",\n".join(json.dumps(rounded(x)) for x in measured)
        (OUT / "auto.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        (OUT / "auto.md").write_text(page(measured, judged), encoding="utf-8")
