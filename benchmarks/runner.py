"""What running a study adds to the work that it consists of."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Fact
from unlearnkit.cache import Cache
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run as run_study
from unlearnkit.studies.spec import Study, make_study

GOAL = 0.05
METHODS = ("finetune", "ssd", "scrub", "neggrad_plus", "relabel", "l1_sparse", "gradient_ascent",
           "bad_teacher")  # fmt: skip
SEEDS = 25


def run() -> Iterator[Fact]:
    """Yield the share of the wall time that is not training, unlearning or audit."""
    asked = study()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")
        with Store(Path(folder) / "s.sqlite") as store:
            start = time.perf_counter()
            outcome = run_study(asked, store, cache)
            wall = time.perf_counter() - start
            work = spent(store, cache)
    assert outcome.failed == 0
    yield Fact(
        f"share of the time of {outcome.done} runs on digits that is not training, unlearning or"
        " audit",
        (wall - work) / wall,
        "share",
        goal=GOAL,
        how=f"{len(METHODS)} methods, {SEEDS} seeds and originals, 3 oracles, one process, nothing"
        f" cached; {wall:.1f} s, of them {work:.1f} s of work",
    )


def study() -> Study:
    """Return a study of 200 short runs."""
    return make_study(
        {
            "name": "runner",
            "cases": ["digits"],
            "requests": ["class=3"],
            "methods": list(METHODS),
            "seeds": SEEDS,
            "oracles": 3,
        }
    )


def spent(store: Store, cache: Cache) -> float:
    """Return the seconds of all trainings, unlearnings and audits."""
    runs = [r for r in store.runs("study") if r.status == "done"]
    audits = store.fact_by_run([r.key for r in runs], "audit_seconds")
    trained = sum(float(e.facts["seconds"]) for e in cache.entries() if e.facts)
    return trained + sum(r.seconds or 0.0 for r in runs) + sum(map(float, audits.values()))
