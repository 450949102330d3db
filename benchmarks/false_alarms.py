"""How often the reference audit accuses a genuine oracle, and how often it lets one pass.

    python -m benchmarks.false_alarms --draws 200

Trains a pool of models without the forget rows, then, draw by draw, puts one in the seat of the
unlearned model and five others beside it. Whatever it is accused of is a false alarm.
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from unlearnkit.auditing.audit import audit
from unlearnkit.catalog import cases
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


def main() -> None:
    """Measure and write ``docs/results/false_alarms.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--oracles", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: rates(name, args.pool, args.draws, args.oracles)
        for name in ("class", "random_tenth", "mislabelled_tenth")
    }
    facts = {"draws": args.draws, "pool": args.pool, "oracles": args.oracles, "rates": found}
    path = Path("docs/results/false_alarms.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
