"""How attacks on real targets fare with genuine oracles: before and after matching.

    python -m experiments regression_audit --write
    python -m experiments regression_audit diabetes toy --oracles 30 --draws 200

An oracle never saw the forget rows, so an attack should have an AUC of 0.5 on it. For each request
of the named cases, or of every case with real targets: the oracles' AUC on forget rows against all
test rows, against test rows in the forget rows' mix of targets, and of each row against rows of
like target only, of the same groups where groups are forgotten. With ``--draws`` each oracle of a
pool also stands in the seat of the unlearned model beside five others; whatever it is accused of
is a false alarm. Cases that are not bundled are read from ``UNLEARNKIT_DATA``; oracles are kept in
the cache, so a second call goes on where one stopped.
"""

import argparse
import json
import math
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.regression import CASES
from unlearnkit.auditing.metric_table import metric_rows
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.verdicts_reference import VerdictInputs, judge
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.catalog import cases
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.inference import predict
from unlearnkit.core.request import ForgetRequest, Groups, Rows, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.matched_auc import matched_auc
from unlearnkit.stats.roc import auc, delong_variance
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

PAGE = Path(__file__).parents[1] / "docs" / "results" / "regression_audit.md"
EVERY = (*CASES, "cifar10_rotation")
ADVERSE = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED)
BESIDE = 5
"""Oracles beside the one in the seat of the unlearned model."""

REACH = 3.0
"""Standard errors of 0.5 within which the oracles' AUC should lie."""

ALL, MIX, LIKE = "all test rows", "test rows in the mix of targets", "rows of like target"
KIND = "rows of like target and the same groups"
RT = Runtime()


def problems(names: Iterable[str]) -> Iterator[tuple[str, CaseWithRequest]]:
    """Yield the requests of the named cases; diabetes and toy have further ranges of targets."""
    for name in names:
        if name != "toy":
            built = cases()[name]
            yield from ((f"{name}/{r}", built.ask(r)) for r in built.requests)
        if name == "diabetes":
            yield "diabetes/target>1.2", CaseWithRequest(built.make(), Targets(above=1.2))
            yield "diabetes/target<-0.9", CaseWithRequest(built.make(), Targets(below=-0.9))
        if name == "toy":
            toy = toy_case(Regression())
            yield "toy/a random fifth", CaseWithRequest(toy, Rows(range(12)))
            yield "toy/target>0.5", CaseWithRequest(toy, Targets(above=0.5))


class Pool:
    """Stored outputs of the original and many oracles on the rows that an audit looks at."""

    def __init__(self, case: Case, request: ForgetRequest, count: int) -> None:
        """Train them."""
        parts = case.partition(request)
        self.case, self.count = case, count
        self.views = choose(case, parts, RT, request).views
        models = {"original": train_original(case).model}
        trained = oracle(case, request, seeds=count).models
        models |= {f"oracle/{k}": m for k, m in enumerate(trained)}
        assert case.test is not None
        self.whole = View.all(case.test)
        self.kind = _of_the_groups(self.whole, request)
        self.outputs = {
            n: {s: predict(m, v, case.task, RT) for s, v in self.views.items()}
            for n, m in models.items()
        }
        self.on_all = {n: predict(m, self.whole, case.task, RT) for n, m in models.items()}

    def verdicts(self, seat: str, beside: list[int]) -> set[Verdict]:
        """Return what the reference audit says about one model beside some oracles."""
        outputs = {"original": self.outputs["original"], "unlearned": self.outputs[seat]}
        outputs |= {f"oracle/{i}": self.outputs[f"oracle/{k}"] for i, k in enumerate(beside)}
        targets = {s: v.y for s, v in self.views.items()}
        e = Evidence.from_outputs(outputs, targets, self.case.task, RT)
        rows = tuple(metric_rows(e, "reference"))
        facts = VerdictInputs(
            rows, classes_removed=False, head_only=False, unchanged=False, oracles=len(beside)
        )
        return {f.verdict for f in judge(facts, "reference")}

    def areas(self) -> dict[str, dict[str, float]]:
        """Return the AUC of minus the error, by comparison: of oracles, and of the original."""
        names = [f"oracle/{k}" for k in range(self.count)]
        y, go = self.whole.y, self.views[Split.FORGET].y
        kind = self.kind

        def minus_error(out: Tensor, target: Tensor) -> Tensor:
            rows = Batch(target, target, torch.arange(len(target)))
            return -self.case.task.errors(out, rows).double()

        def found_of(name: str) -> dict[str, tuple[float, float]]:
            mine = minus_error(self.outputs[name][Split.FORGET], go)
            every = minus_error(self.on_all[name], y)
            found = {ALL: (auc(mine, every), delong_variance(mine, every))}
            if Split.HELD_OUT in self.views:
                held = self.views[Split.HELD_OUT].y
                some = minus_error(self.outputs[name][Split.HELD_OUT], held)
                found[MIX] = auc(mine, some), delong_variance(mine, some)
                found[LIKE] = _like(mine, some, go, held)
            if kind is not None:
                found[KIND] = _like(mine, every[kind], go, y[kind])
            return found

        each = [found_of(n) for n in names]
        before = found_of("original")
        return {what: _over([e[what] for e in each], before[what][0]) for what in before}


def _over(each: list[tuple[float, float]], before: float) -> dict[str, float]:
    """Return one comparison over oracles, from the AUC of each and its variance over rows.

    All oracles are compared on the same rows: their mean varies as one of them does over draws of
    rows, and by a share of the variance between them over draws of models.
    """
    mean, rows = (statistics.mean(column) for column in zip(*each, strict=True))
    between = statistics.variance(auc for auc, _ in each)
    error = math.sqrt(rows + between / len(each))
    far = max(((auc - 0.5) / math.sqrt(v) if v else math.nan for auc, v in each), key=abs)
    return {
        "oracles": mean,
        "standard error": error,
        "away in standard errors": (mean - 0.5) / error if error else math.nan,
        "furthest oracle, over rows alone": far,
        "original": before,
    }


def _of_the_groups(whole: View, request: ForgetRequest) -> Tensor | None:
    """Return which test rows are of the forgotten groups; None where no test row is, or none."""
    group = getattr(whole.data, "group", None)
    if not isinstance(request, Groups) or group is None:
        return None
    found = torch.isin(group, torch.tensor(request.groups))
    return found if bool(found.any()) else None


def _like(mine: Tensor, others: Tensor, go: Tensor, there: Tensor) -> tuple[float, float]:
    near = matched_auc(mine, others, go, there)
    return near.auc, _variance(near.auc, *(near.interval or (math.nan, math.nan)))


def _variance(area: float, low: float, high: float) -> float:
    """Return the variance behind a 95 % interval on the logit scale."""
    if not 0 < area < 1:
        return math.nan
    reach = math.log(high / (1 - high)) - math.log(low / (1 - low))
    return (reach / 2 / statistics.NormalDist().inv_cdf(0.975) * area * (1 - area)) ** 2


def measured(asked: CaseWithRequest, pool: int, draws: int) -> dict[str, Any]:
    """Return false alarms and AUCs of one request."""
    made = Pool(asked.case, asked.request, pool)
    told: dict[str, Any] = {"rows": {str(s): len(v) for s, v in made.views.items()}}
    told["auc"] = made.areas()
    if not draws:
        return told
    counts: Counter[str] = Counter()
    for draw in range(draws):
        order = torch.randperm(pool, generator=RT.rng(f"draw/{draw}")).tolist()
        found = made.verdicts(f"oracle/{order[0]}", order[1 : BESIDE + 1])
        counts.update(str(v) for v in found)
        counts["any accusation"] += bool(found & set(ADVERSE))
    told["verdicts on oracles"] = {k: round(v / draws, 3) for k, v in sorted(counts.items())}
    told["verdicts on the original"] = sorted(
        map(str, made.verdicts("original", list(range(BESIDE))))
    )
    return told


def matched(areas: dict[str, dict[str, float]]) -> tuple[str, dict[str, float]] | None:
    """Return the closest match that a request allows: by target and group, or by target."""
    return next(((what, areas[what]) for what in (KIND, LIKE) if what in areas), None)


def page(found: dict[str, dict[str, Any]], oracles: int) -> str:
    """Return the result as Markdown."""
    best = {name: matched(f["auc"]) for name, f in found.items()}
    away = {n: math.nan if b is None else b[1]["away in standard errors"] for n, b in best.items()}
    apart = [n for n, z in away.items() if abs(z) > REACH]
    blind = [n for n, z in away.items() if math.isnan(z)]
    lines = [
        "# Attacks on oracles, with real targets",
        "",
        "The AUC of minus the error, of forget rows against rows that no model saw, for"
        f" {oracles} oracles a request: they never saw the forget rows either, so 0.5 is right."
        f" Made by `python -m experiments regression_audit --oracles {oracles} --write` (torch"
        f" {torch.__version__}, {platform.machine()}).",
        "",
        "Matched: each forget row against test rows of like target, and of the same groups where"
        " groups are forgotten and test rows name theirs. Mean over oracles ± its standard error,"
        " over draws of rows and of models; rows count as independent, which forecasts whose hours"
        " overlap are not. Away: the distance from 0.5 in standard errors. Furthest: that of the"
        " oracle furthest from 0.5, in standard errors over rows alone.",
        "",
        f"- Matched, within {REACH:g} standard errors of 0.5 on"
        f" {len(found) - len(apart) - len(blind)} of {len(found)} requests; beyond:"
        f" {', '.join(apart) or 'none'}; no match: {', '.join(blind) or 'none'}.",
        "",
        "| request | forget rows | all test rows | in the mix of targets | matched | away |"
        " furthest | matched by | the original, matched |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in found.items():
        cells = [name, str(f["rows"]["forget"]), *(_cell(f["auc"].get(w)) for w in (ALL, MIX))]
        if (near := best[name]) is None:
            cells += [""] * 5
        else:
            what, area = near
            far = f"{area['furthest oracle, over rows alone']:+.1f}"
            by = "target and groups" if what == KIND else "target"
            cells += [_cell(area), f"{away[name]:+.1f}", far, by, f"{area['original']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(area: dict[str, float] | None) -> str:
    if area is None:
        return ""
    return f"{area['oracles']:.3f} ± {area['standard error']:.3f}"


def rounded(told: Any) -> Any:
    """Return nested facts with three digits behind the point."""
    if isinstance(told, dict):
        return {k: rounded(v) for k, v in told.items()}
    return round(told, 3) if isinstance(told, float) else told


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=EVERY, metavar="CASE")
    parser.add_argument("--oracles", type=int, default=3, help="the pool of each request")
    parser.add_argument("--draws", type=int, default=0, help="audits of an oracle, each request")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    args = parser.parse_args()
    if args.oracles < (BESIDE + 1 if args.draws else 2):
        parser.error(f"name two oracles at least, and {BESIDE + 1} for --draws")
    if args.write and tuple(args.cases) != EVERY:
        parser.error("--write writes the whole page; name no case with it")
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for name, asked in problems(args.cases):
        found[name] = measured(asked, args.oracles, args.draws)
        print(json.dumps({name: rounded(found[name])}), flush=True)
    if args.write:
        PAGE.write_text(page(found, args.oracles), encoding="utf-8")
