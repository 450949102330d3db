"""One year of deletion requests on one model, under several policies of the ledger.

    python -m experiments year
    python -m experiments year --data digits --policy "fine-tune" --days 60

365 simulated days. Requests arrive as a Poisson process and name one training row or a few; some
have a short deadline, some are sent twice, some name nobody. Every third day a timer calls
``run_batch``, but for an outage of twelve days. Every policy gets the same requests. The ledger
is the real one, with a clock that the simulation moves. It writes ``docs/results/year.json``,
``.md`` and ``.svg``; lines that are there already are not made again.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from experiments.year_page import page, plot
from unlearnkit.cache import Cache
from unlearnkit.cases.adult import adult
from unlearnkit.cases.digits import digits
from unlearnkit.checkpoint import load_weights
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.ledger.deletion_request import receive
from unlearnkit.ledger.deletion_run import POINTER, run_batch
from unlearnkit.ledger.ledger_check import check
from unlearnkit.ledger.new_ledger import create_ledger
from unlearnkit.ledger.policy import read_policy
from unlearnkit.ledger.register import Register
from unlearnkit.sisa.case_in_shards import sharded_case
from unlearnkit.stats.roc import auc
from unlearnkit.train.features import row_losses
from unlearnkit.unlearning.run_method import fresh_model

OUT = Path("docs/results/year.json")
DAYS = 365
OUTAGE = range(200, 212)
TIMER = 3
"""Days from one call of the timer to the next."""

START = datetime(2027, 1, 1, tzinfo=UTC)
NO_LIMIT = ["LEAKS", "OVER-FORGOT", "DISTINGUISHABLE", "DAMAGED", "INCONCLUSIVE"]
GOOD = ["MATCHES RETRAINING WITHIN LIMITS", "MEMORY GONE WITHIN LIMITS"]
RULE = {"batches": 6, "rows_share": 0.05, "test_error_rise": 0.01}

POLICIES: dict[str, dict[str, Any]] = {
    "retrain": {"methods": ["retrain"], "days": 14},
    "fine-tune, rule": {"methods": ["finetune"], "days": 14, "retrain_when": RULE},
    "fine-tune": {"methods": ["finetune"], "days": 14, "retrain_at_end": False},
    "SISA, 5 shards": {"methods": ["sisa"], "days": 14, "shards": 5},
    "fine-tune, rule, reference audit": {
        "methods": ["finetune"], "days": 14, "retrain_when": RULE, "tier": "reference",
    },
}  # fmt: skip
"""Policies by name; ``days`` is the longest wait for company."""


@cache
def digits_year() -> Case:
    """Return digits with a shorter training, and all rows that are not trained on as test rows."""
    case = digits()
    assert case.recipe is not None
    assert case.test is not None
    assert case.validation is not None
    sets = (case.test, case.validation)
    test = TensorData(torch.cat([d.x for d in sets]), torch.cat([d.y for d in sets]))
    recipe = case.recipe.model_copy(update={"epochs": 20})
    return case.replace(test=test, recipe=recipe, name="digits")


@cache
def adult_year() -> Case:
    """Return the first 5,000 people of Adult, 4,000 to test on, and 4 epochs."""
    case = adult()
    assert case.train is not None
    assert case.test is not None
    assert case.recipe is not None
    return case.replace(
        train=case.train.pick(torch.arange(5000)),
        test=case.test.pick(torch.arange(4000)),
        recipe=case.recipe.model_copy(update={"epochs": 4}),
        name="adult",
    )


DATA: dict[str, tuple[Callable[[], Case], float, float]] = {
    "digits": (digits_year, 0.6, 0.3),
    "adult": (adult_year, 1.0, 1.0),
}
"""Case, requests a day, and mean of the rows beyond the first that a request names."""


@dataclass(frozen=True)
class Arrival:
    """A request of the simulation."""

    day: float
    id: str
    rows: tuple[int, ...]
    """Keys of training rows; empty for a name that nobody has."""

    answer_within: int | None
    """Days; None for the policy's 30."""

    twice: bool


def arrivals(rows: int, rate: float, more: float, days: int = DAYS, seed: int = 0) -> list[Arrival]:
    """Return the requests of a year.

    Args:
        rows: Training rows; each is named at most once.
        rate: Requests a day.
        more: Mean number of rows beyond the first.
        days: How long.
        seed: Of all draws.

    Returns:
        The requests in order. The first days are the same for every ``days``.
    """
    draw = np.random.default_rng(seed)  # the experiment's own draws
    left = iter(draw.permutation(rows).tolist())
    found, day = [], 0.0
    while (day := day + float(draw.exponential(1 / rate))) < days:
        count, kind = 1 + int(draw.poisson(more)), draw.random(3)
        named = () if kind[0] < 0.03 else tuple(next(left) for _ in range(count))
        urgent = 10 if kind[1] < 0.1 else None
        found.append(Arrival(day, f"r{len(found):04}", named, urgent, bool(kind[2] < 0.05)))
    return found


class Clock:
    """The simulated time."""

    def __init__(self) -> None:
        self.day = 0.0

    def __call__(self) -> datetime:
        """Return the time."""
        return START + timedelta(days=self.day)


def write_policy(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write the policy file of a simulated ledger."""
    good = [*GOOD, "INCONCLUSIVE"]
    free = wanted.get("retrain_at_end", True) is False
    policy = {
        "signer": {"name": "data protection officer"},
        "tier": wanted.get("tier", "fast"),
        "methods": wanted["methods"],
        "retrain_at_end": wanted.get("retrain_at_end", True),
        "retrain_when": wanted.get("retrain_when", {}),
        "accept": [*GOOD, *NO_LIMIT] if free else good,
        "accept_exact": [*GOOD, *NO_LIMIT],
        "batch": {"at_least": 10**6, "longest_wait_days": wanted["days"], "most": 1000},
        "page": False,
    }
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")


def simulate(data: str, name: str, days: int, cached: Cache) -> dict[str, Any]:
    """Return what a year under one policy was like.

    Args:
        data: A key of ``DATA``.
        name: A key of ``POLICIES``.
        days: How many days.
        cached: Where models are kept.

    Returns:
        A line: for each batch and each request what became of it, and the year's totals.
    """
    make, rate, more = DATA[data]
    wanted, case = POLICIES[name], make()
    assert case.train is not None
    if "shards" in wanted:
        case = sharded_case(case, shards=wanted["shards"])
    queue = arrivals(len(case.train), rate, more, days)
    clock = Clock()
    root = Path(tempfile.mkdtemp(prefix="unlearnkit-year-"))
    folder = root / "ledger"
    try:
        write_policy(folder, wanted)
        create_ledger(folder, data, case, cache=cached, clock=clock).close()
        batches = _days(folder, case, queue, clock, days, cached)
        return _totals(folder, case, queue, batches, clock, cached)
    finally:
        shutil.rmtree(root)


def _days(
    folder: Path, case: Case, queue: list[Arrival], clock: Clock, days: int, cached: Cache
) -> list[dict[str, Any]]:
    """Let the days pass; return the facts of each batch."""
    policy, batches, todo = read_policy(folder), [], list(queue)
    for day in range(1, days + 1):
        with Register(folder, clock) as register:
            while todo and todo[0].day < day:
                one = todo.pop(0)
                clock.day = one.day
                until = None if one.answer_within is None else day + one.answer_within
                words = "rows=" + (",".join(map(str, one.rows)) or f"nobody-{one.id}")
                deadline = None if until is None else (START + timedelta(days=until)).isoformat()
                for _ in range(1 + one.twice):
                    receive(folder, register, policy, words, id=one.id, deadline=deadline)
        clock.day = float(day)
        with Register(folder, clock) as register:
            idle = not register.requests("waiting")
        if day in OUTAGE or day % TIMER or idle:
            continue
        start = time.process_time()
        outcome = run_batch(folder, case, cache=cached, clock=clock)
        seconds = time.process_time() - start
        if outcome is not None and outcome.batch:
            batches.append(_facts(folder, clock, outcome.batch, outcome.state, day, seconds))
    return batches


def _facts(
    folder: Path, clock: Clock, batch: str, state: str, day: int, seconds: float
) -> dict[str, Any]:
    with Register(folder, clock) as register:
        tried = [e.body for e in register.of_batch("attempt", batch)]
        (begun,) = register.of_batch("batch", batch)
        arrived = [register.request(r).arrival for r in begun.body["requests"]]
    last = tried[-1]
    waited = [(clock() - datetime.fromisoformat(a)) / timedelta(days=1) for a in arrived]
    return {
        "day": day,
        "state": state,
        "requests": len(arrived),
        "rows": begun.body["rows"],
        "methods": [t["id"] for t in tried],
        "retrain": begun.body.get("retrain", ""),
        "refused": [t["why"] for t in tried[:-1]],
        "verdict": last.get("verdict", ""),
        "cost": round(sum(t["cost"] or 0.0 for t in tried), 5),
        "seconds": round(seconds, 4),
        "waited": round(max(waited), 2),
        "distance": round(last["drift"]["distance"], 5),
        "retain_error": last["drift"]["retain_error"],
        "test_error": last["drift"]["test_error"],
    }


def _totals(
    folder: Path,
    case: Case,
    queue: list[Arrival],
    batches: list[dict[str, Any]],
    clock: Clock,
    cached: Cache,
) -> dict[str, Any]:
    """Return the year as a line: batches, requests and the model at the end."""
    start = time.process_time()
    wrong = check(folder)
    verified = time.process_time() - start
    with Register(folder, clock) as register:
        states = register.requests()
        done = {r.id: register.entry(r.latest).time for r in states if r.state == "done"}
        entries = register.head().sequence
    late = sum(done[r.id] > r.deadline for r in states if r.id in done)
    del cached
    sixth = max(1, len(batches) // 6)
    return {
        "policy": yaml.safe_load((folder / "policy.yaml").read_text("utf-8")),
        "batches": batches,
        "requests": len(queue),
        "states": dict(Counter(r.state for r in states)),
        "late": late,
        "rows": sum(b["rows"] for b in batches),
        "training_rows": len(case.train or ()),
        "cost": sum(b["cost"] for b in batches),
        "seconds": sum(b["seconds"] for b in batches),
        "seconds_early": statistics.median(b["seconds"] for b in batches[:sixth]),
        "seconds_late": statistics.median(b["seconds"] for b in batches[-sixth:]),
        "entries": entries,
        "wrong": wrong,
        "verify_seconds": verified,
        "memory": _memory(folder, case, queue),
    }


def _memory(folder: Path, case: Case, queue: list[Arrival]) -> dict[str, float]:
    """Return how well the last model tells deleted rows from test rows, by their losses."""
    assert case.train is not None
    assert case.test is not None
    rt = Runtime()
    now = json.loads((folder / POINTER).read_text("utf-8"))
    model: nn.Module = load_weights(fresh_model(case, rt), folder / now["folder"] / now["file"])
    with Register(folder) as register:
        gone = {r.id for r in register.requests("done")}
    rows = torch.tensor([row for one in queue if one.id in gone for row in one.rows])
    deleted = row_losses(model.eval(), View(case.train, rows), case.task, rt)
    unseen = row_losses(model, View.all(case.test), case.task, rt)
    return {
        "auc": float(auc(-deleted, -unseen)),
        "error": (1 / 12 * (1 / len(deleted) + 1 / len(unseen))) ** 0.5,
    }


def main() -> None:
    """Simulate what is not there yet, and write page and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, action="append")
    parser.add_argument("--policy", choices=POLICIES, action="append")
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(args.out.read_text("utf-8")) if args.out.exists() else {}
    for name in args.policy or POLICIES:
        for data in args.data or DATA:
            if f"{data}/{name}" in kept:
                continue
            kept[f"{data}/{name}"] = simulate(data, name, args.days, Cache())
            args.out.write_text(json.dumps(kept) + "\n", encoding="utf-8")
            args.out.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    plot(kept, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
