"""How often an audit accuses a genuine oracle, and how often it lets one pass.

    python -m experiments false_alarms --draws 200

Trains a pool of models without the forget rows, then, draw by draw, puts one in the seat of the
unlearned model and five others beside it. Whatever it is accused of is a false alarm. The fast
audit has no oracles to compare with and its chance is in the rows: there each draw splits the rows
anew, forgets other ones and trains one model without them.

Stop it in any way and run it again to go on: models are in the cache, and what each draw found is
in ``--part`` until the result is written. Remove that file where the audit has changed since.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from unlearnkit.auditing.audit import audit
from unlearnkit.catalog import cases
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Verdict
from unlearnkit.unlearning.run_method import Unlearned, run_method

ADVERSE = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED)
OUT = Path("docs/results/false_alarms.json")


@dataclass
class Draws:
    """What draws found, a line of JSON each, so that none is made twice."""

    path: Path
    _found: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier call has left; a line that was cut off does not count."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            if line.endswith("]}"):
                self._found |= json.loads(line)

    def rates(self, name: str, draws: int, one: Callable[[int], Iterable[str]]) -> dict[str, float]:
        """Return the share of draws with each finding.

        Args:
            name: What is drawn, with all that a finding depends on.
            draws: How many.
            one: What a draw finds, by its number.

        Returns:
            Shares by finding.
        """
        counts: Counter[str] = Counter()
        for draw in range(draws):
            key = f"{name}/{draw}"
            if key not in self._found:
                self._found[key] = sorted(one(draw))
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps({key: self._found[key]}))
            counts.update(self._found[key])
        return {k: round(v / draws, 4) for k, v in sorted(counts.items())}


def verdicts(report: Report) -> set[str]:
    """Return the verdicts of an audit, and whether any accuses."""
    found = {f.verdict for f in report.findings}
    return {str(v) for v in found} | ({"any accusation"} if found & set(ADVERSE) else set())


@dataclass
class Pool:
    """Models without the forget rows of a named request of digits; trained when first needed."""

    name: str
    count: int
    beside: int

    @cached_property
    def _done(self) -> tuple[Oracles, Unlearned]:
        asked = cases()["digits"].ask(self.name)
        original = train_original(asked.case).model
        every = oracle(asked.case, asked.request, seeds=range(2000, 2000 + self.count))
        return every, run_method(original, asked.case, asked.request, "finetune")

    def draw(self, draw: int) -> set[str]:
        """Return what the audit says with one of the models in the seat and others beside it."""
        every, done = self._done
        order = torch.randperm(self.count, generator=Runtime().rng(f"{self.name}/{draw}")).tolist()
        beside = tuple(every.runs[i] for i in order[1 : self.beside + 1])
        seated = replace(done, model=every.runs[order[0]].model)
        return verdicts(audit(seated, oracle=Oracles(every.case, every.request, beside)))


def fast_draw(draw: int) -> set[str]:
    """Return what the fast audit says of a model retrained without a random tenth of digits.

    And whether the test by relearning finds a trace of the forget rows in the original.
    """
    case, go = shuffled(draw), Rows(range(143))
    original = train_original(case, seed=draw).model
    report = audit(run_method(original, case, go, "retrain", Runtime(seed=draw)))
    before = report.row("relearn_gap").original
    caught = {"original caught by relearning"} if before and (before.low or 0.0) > 0 else set()
    return verdicts(report) | caught


def shuffled(draw: int) -> Case:
    """Return digits with training and test rows drawn anew."""
    whole = cases()["digits"].make()
    assert whole.train is not None
    assert whole.test is not None
    x, y = torch.cat([whole.train.x, whole.test.x]), torch.cat([whole.train.y, whole.test.y])
    order = torch.randperm(len(y), generator=Runtime().rng(f"fast/{draw}"))
    a, b = order[: len(whole.train)], order[len(whole.train) :]
    return whole.replace(train=TensorData(x[a], y[a]), test=TensorData(x[b], y[b]), validation=None)


def main() -> None:
    """Measure and write ``docs/results/false_alarms.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--oracles", type=int, default=5)
    parser.add_argument("--fast", type=int, default=100, help="draws of the fast audit")
    parser.add_argument("--part", type=Path, default=Path("runs/false_alarms.jsonl"))
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.part.parent.mkdir(parents=True, exist_ok=True)
    kept = Draws(args.part)
    found = {}
    for name in ("class", "random_tenth", "mislabelled_tenth"):
        pool = Pool(name, args.pool, args.oracles)
        found[name] = kept.rates(f"{name}/{args.pool}/{args.oracles}", args.draws, pool.draw)
        print(name, found[name], flush=True)
    fast = kept.rates("fast", args.fast, fast_draw)
    facts = {"draws": args.draws, "pool": args.pool, "oracles": args.oracles, "rates": found}
    facts |= {"fast_draws": args.fast, "fast_rates": {"random_tenth": fast}}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))
    args.part.unlink(missing_ok=True)
