"""How soon a study is shown from a large store."""

import json
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Fact, seconds
from benchmarks.startup import timed
from unlearnkit.catalog import metrics
from unlearnkit.store import Store
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.planning.study_plan import keep_plan, make_plan
from unlearnkit.studies.spec import Study, load, make_study
from unlearnkit.studies.table.build_table import show
from unlearnkit.studies.table.study_text import render_text

MEASUREMENTS = 1_000_000
GOAL = 2.0
REPEATS = 3
WHO = ("unlearned", "original", *(f"oracle {k}" for k in range(5)))


def run() -> Iterator[Fact]:
    """Yield times to show a study that fills a store of a million measurements, and a small one."""
    names = list(metrics())
    each = len(names) * len(WHO)
    with tempfile.TemporaryDirectory() as folder:
        whole = study(MEASUREMENTS // each)
        small = study(200)
        path = Path(folder) / "s.sqlite"
        runs = expand(whole)
        count = fill(path, runs, names)
        for what, asked in (("all runs of it", whole), ("200 runs of it", small)):
            with Store(path) as store:
                keep_plan(asked, store, make_plan(asked))
                do = partial(shown, asked, store)
                times = [seconds(do) for _ in range(REPEATS)]
            yield Fact(
                f"show a study from a store of {count:,} measurements: {what}",
                sorted(times)[REPEATS // 2], "s", min(times), max(times), GOAL,
                f"{len(expand(asked))} runs, {path.stat().st_size / 2**20:.0f} MiB; plan, results"
                f" read, computed, set as text; imports not counted; {REPEATS} repetitions",
            )  # fmt: skip
        yield from command(whole, path)


def command(asked: Study, path: Path) -> Iterator[Fact]:
    """Yield wall times of the command that shows a study, a fresh process each time."""
    file = path.with_name("study.yaml")
    words = asked.model_dump(mode="json", exclude={"methods"})
    file.write_text(json.dumps({**words, "methods": [c.method for c in asked.methods]}))
    arguments = ["-m", "unlearnkit", "study", "show", str(file), "--store", str(path)]
    what = "unlearnkit study show of all of it, as a whole process"
    with Store(path) as store:
        study = load(file)
        keep_plan(study, store, make_plan(study))
    yield timed(what, arguments, GOAL)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM plan")
    yield timed(f"{what}, when the store has no plan of it", arguments)


def shown(asked: Study, store: Store) -> str:
    """Return a study's table as text."""
    return render_text(show(asked, store))


def study(runs: int) -> Study:
    """Return a study of about so many runs: two forget sets, eight methods."""
    methods = ("finetune", "ssd", "scrub", "neggrad_plus", "relabel", "l1_sparse",
               "gradient_ascent", "retrain")  # fmt: skip
    seeds = round(runs / 2 / len(methods))
    return make_study(
        {
            "name": "large",
            "cases": ["digits"],
            "requests": ["class=3", "class=5"],
            "methods": list(methods),
            "seeds": min(seeds, 1000),
        }
    )


def fill(path: Path, runs: tuple[RunSpec, ...], names: list[str]) -> int:
    """Fill a store with made numbers of these runs, in the order of their digests."""
    Store(path).close()
    draw = random.Random(0).random
    with sqlite3.connect(path) as db:
        for p in sorted(runs, key=lambda p: p.key):
            db.execute(
                "INSERT INTO run VALUES (?, 'study', ?, ?, ?, '{}', ?, 'done', '',"
                " '2030-01-01', 1.0, 1, 1, '', '')",
                (p.key, p.case, p.request, p.method, p.seed),
            )
            db.executemany(
                "INSERT INTO measurement VALUES (?, ?, ?, ?, NULL, NULL, '', NULL)",
                [(p.key, m, who, draw()) for m in names for who in WHO],
            )
            db.execute("INSERT INTO fact VALUES (?, 'verdict', 'INCONCLUSIVE')", (p.key,))
        return int(db.execute("SELECT count(*) FROM measurement").fetchone()[0])
