"""How often an audit accuses a genuine oracle, and how often it lets one pass.

    python -m benchmarks.false_alarms --draws 200

Trains a pool of models without the forget rows, then, draw by draw, puts one in the seat of the
unlearned model and five others beside it. Whatever it is accused of is a false alarm. The fast
audit has no oracles to compare with and its chance is in the rows: there each draw splits the rows
anew, forgets other ones and trains one model without them.
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from unlearnkit.auditing.audit import audit
from unlearnkit.catalog import cases
from unlearnkit.core.data import TensorData
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracle, oracle, train_original
from unlearnkit.report.model import Verdict
from unlearnkit.unlearning import unlearn

ADVERSE = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED)


def rates(name: str, pool: int, draws: int, beside: int) -> dict[str, float]:
    """Return the share of draws with each verdict, for one named request of digits."""
    asked = cases()["digits"].ask(name)
    original = train_original(asked.case).model
    done = unlearn(original, asked.case, asked.request, "finetune")
    runs = oracle(asked.case, asked.request, seeds=range(2000, 2000 + pool)).runs
    counts: Counter[str] = Counter()
    for draw in range(draws):
        order = torch.randperm(pool, generator=Runtime().rng(f"{name}/{draw}")).tolist()
        truth = Oracle(asked.case, asked.request, tuple(runs[i] for i in order[1 : beside + 1]))
        report = audit(replace(done, model=runs[order[0]].model), oracle=truth)
        found = {f.verdict for f in report.findings}
        counts.update(str(v) for v in found)
        counts["any accusation"] += bool(found & set(ADVERSE))
    return {k: round(v / draws, 4) for k, v in sorted(counts.items())}


def fast_rates(draws: int) -> dict[str, float]:
    """Return the share of draws with each verdict of the fast audit, for random tenths of digits.

    And how often the test by relearning finds a trace of the forget rows in the original.
    """
    whole = cases()["digits"].make()
    assert whole.train is not None
    assert whole.test is not None
    x, y = torch.cat([whole.train.x, whole.test.x]), torch.cat([whole.train.y, whole.test.y])
    cut, go = len(whole.train), Rows(range(len(whole.train) // 10))
    counts: Counter[str] = Counter()
    for draw in range(draws):
        order = torch.randperm(len(y), generator=Runtime().rng(f"fast/{draw}"))
        a, b = order[:cut], order[cut:]
        case = whole.with_(
            train=TensorData(x[a], y[a]), test=TensorData(x[b], y[b]), validation=None
        )
        original = train_original(case, seed=draw).model
        report = audit(unlearn(original, case, go, "retrain", Runtime(seed=draw)))
        found = {f.verdict for f in report.findings}
        counts.update(str(v) for v in found)
        counts["any accusation"] += bool(found & set(ADVERSE))
        before = report.row("relearn_gap").original
        counts["original caught by relearning"] += bool(before and (before.low or 0.0) > 0)
    return {k: round(v / draws, 4) for k, v in sorted(counts.items())}


def main() -> None:
    """Measure and write ``docs/results/false_alarms.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--oracles", type=int, default=5)
    parser.add_argument("--fast", type=int, default=100, help="draws of the fast audit")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: rates(name, args.pool, args.draws, args.oracles)
        for name in ("class", "random_tenth", "mislabelled_tenth")
    }
    facts = {"draws": args.draws, "pool": args.pool, "oracles": args.oracles, "rates": found}
    facts |= {"fast_draws": args.fast, "fast_rates": {"random_tenth": fast_rates(args.fast)}}
    path = Path("docs/results/false_alarms.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
