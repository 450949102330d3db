"""How attacks on real targets fare with genuine oracles: before and after matching by target.

    python -m benchmarks.regression_audit --draws 200

Trains a pool of models without the forget rows. Each stands in the seat of the unlearned model
beside five others; whatever it is accused of is a false alarm. And for each request the oracles'
AUC on forget rows: against all test rows, against test rows in the forget rows' mix of targets,
and of each row against rows of like target only.
"""

import argparse
import json
import math
import statistics
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from unlearnkit.auditing.rows import table
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.verdicts import Facts, findings
from unlearnkit.catalog import cases
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, Split, run
from unlearnkit.core.request import ForgetRequest, Groups, Rows, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.statistics import auc, delong_variance
from unlearnkit.oracles import oracle, train_original
from unlearnkit.report.model import Verdict
from unlearnkit.stats.matching import matched_auc
from unlearnkit.tasks.regression import Regression

ADVERSE = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED)
RT = Runtime()


def problems() -> dict[str, tuple[Case, ForgetRequest]]:
    """Return cases and requests by name."""
    diabetes, toy = cases()["diabetes"].make(), Regression().toy(0)
    return {
        "diabetes, a random tenth": (diabetes, Rows(range(0, 310, 10))),
        "diabetes, one group": (diabetes, Groups(2)),
        "diabetes, target>1.2": (diabetes, Targets(above=1.2)),
        "diabetes, target<-0.9": (diabetes, Targets(below=-0.9)),
        "toy, a random fifth": (toy, Rows(range(12))),
        "toy, target>0.5": (toy, Targets(above=0.5)),
    }


class Pool:
    """Stored outputs of the original and many oracles on the rows that an audit looks at."""

    def __init__(self, case: Case, request: ForgetRequest, count: int) -> None:
        """Train them."""
        parts = case.partition(request)
        self.case, self.count = case, count
        self.views = choose(case, parts, RT, request).views
        models = {"original": train_original(case).model}
        trained = oracle(case, request, seeds=range(2000, 2000 + count)).models
        models |= {f"oracle/{k}": m for k, m in enumerate(trained)}
        assert case.test is not None
        self.whole = View.all(case.test)
        self.outputs = {
            n: {s: run(m, v, case.task, RT) for s, v in self.views.items()}
            for n, m in models.items()
        }
        self.on_all = {n: run(m, self.whole, case.task, RT) for n, m in models.items()}

    def verdicts(self, seat: str, beside: list[int]) -> set[Verdict]:
        """Return what the reference audit says about one model beside some oracles."""
        outputs = {"original": self.outputs["original"], "unlearned": self.outputs[seat]}
        outputs |= {f"oracle/{i}": self.outputs[f"oracle/{k}"] for i, k in enumerate(beside)}
        targets = {s: v.y for s, v in self.views.items()}
        e = Evidence.from_outputs(outputs, targets, self.case.task, RT)
        rows = tuple(table(e, "reference"))
        facts = Facts(rows, gone=False, head_only=False, unchanged=False, oracles=len(beside))
        return {f.verdict for f in findings(facts, "reference")}

    def areas(self) -> dict[str, dict[str, float]]:
        """Return the AUC of minus the error, by comparison: of oracles, and of the original."""
        names = [f"oracle/{k}" for k in range(self.count)]
        y, go = self.whole.y, self.views[Split.FORGET].y

        def minus_error(out: Tensor, target: Tensor) -> Tensor:
            return -(out - target).abs().mean(1).double()

        def three(name: str) -> dict[str, tuple[float, float]]:
            mine = minus_error(self.outputs[name][Split.FORGET], go)
            every = minus_error(self.on_all[name], y)
            found = {"all test rows": (auc(mine, every), delong_variance(mine, every))}
            if Split.HELD_OUT in self.views:
                held = self.views[Split.HELD_OUT].y
                some = minus_error(self.outputs[name][Split.HELD_OUT], held)
                near = matched_auc(mine, some, go, held)
                low, high = near.interval or (math.nan, math.nan)
                found["test rows in the mix of targets"] = (
                    auc(mine, some),
                    delong_variance(mine, some),
                )
                found["rows of like target"] = near.auc, _variance(near.auc, low, high)
            return found

        each = [three(n) for n in names]
        before = three("original")
        return {
            what: {
                "oracles": round(statistics.mean(e[what][0] for e in each), 3),
                "standard error over rows": round(
                    math.sqrt(statistics.mean(e[what][1] for e in each)), 3
                ),
                "standard deviation over oracles": round(
                    statistics.stdev(e[what][0] for e in each), 3
                ),
                "original": round(before[what][0], 3),
            }
            for what in before
        }


def _variance(area: float, low: float, high: float) -> float:
    """Return the variance behind a 95 % interval on the logit scale."""
    if not 0 < area < 1:
        return math.nan
    reach = math.log(high / (1 - high)) - math.log(low / (1 - low))
    return (reach / 2 / statistics.NormalDist().inv_cdf(0.975) * area * (1 - area)) ** 2


def measured(
    case: Case, request: ForgetRequest, pool: int, draws: int, beside: int
) -> dict[str, object]:
    """Return false alarms and AUCs of one request."""
    made = Pool(case, request, pool)
    counts: Counter[str] = Counter()
    for draw in range(draws):
        order = torch.randperm(pool, generator=RT.rng(f"draw/{draw}")).tolist()
        found = made.verdicts(f"oracle/{order[0]}", order[1 : beside + 1])
        counts.update(str(v) for v in found)
        counts["any accusation"] += bool(found & set(ADVERSE))
    return {
        "rows": {str(s): len(v) for s, v in made.views.items()},
        "verdicts on oracles": {k: round(v / draws, 3) for k, v in sorted(counts.items())},
        "verdicts on the original": sorted(
            map(str, made.verdicts("original", list(range(beside))))
        ),
        "auc": made.areas(),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=int, default=30)
    parser.add_argument("--oracles", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {n: measured(*p, args.pool, args.draws, args.oracles) for n, p in problems().items()}
    facts = {"draws": args.draws, "pool": args.pool, "oracles": args.oracles, "problems": found}
    text = json.dumps(facts, indent=1) + "\n"
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
