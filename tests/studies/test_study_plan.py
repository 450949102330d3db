"""The plan of a study is kept in the store by ``study run``, and shown from there."""

import os
import subprocess
import sys

import pytest

from tests.studies import toys
from tests.studies.conftest import ROOT, small
from tests.studies.made import filled
from tests.studies.toys import HERE
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.planning import study_plan
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.plan import plan
from unlearnkit.studies.planning.run_spec import is_finished
from unlearnkit.studies.planning.study_plan import (
    keep_plan,
    load_or_make_plan,
    make_plan,
    plan_digest,
)
from unlearnkit.studies.spec import load, make_study
from unlearnkit.studies.table.build_table import show
from unlearnkit.studies.tuning.search import tune

FILE = """
name: kept
cases: digits
requests: [class=3, random_tenth]
methods: [finetune, ssd]
seeds: 3
oracles: 3
"""
SHOW = """
import sys
from unlearnkit.cli import main

sys.argv = ["unlearnkit", *sys.argv[1:]]
try:
    main()
finally:
    print(*(m for m in ("torch", "sklearn") if m in sys.modules), file=sys.stderr)
"""


def digits(**changes):
    base = {
        "name": "kept",
        "cases": ["digits"],
        "requests": ["class=3"],
        "methods": ["finetune"],
        "seeds": 2,
    }
    return make_study(base | changes)


def kept_plans(store):
    return store._db.execute("SELECT study, digest FROM plan").fetchall()


def test_a_planned_study_is_shown_without_torch_and_reads_the_same(tmp_path):
    file, store = tmp_path / "study.yaml", tmp_path / "s.sqlite"
    file.write_text(FILE)
    study = load(file)
    filled(store, expand(study)).close()
    words = [sys.executable, "-c", SHOW, "study", "show", str(file), "--store", str(store)]
    place = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(words, cwd=ROOT, env=place, capture_output=True, check=True)
    with Store(store) as kept:
        keep_plan(study, kept, make_plan(study))
    second = subprocess.run(words, cwd=ROOT, env=place, capture_output=True, check=True)
    assert b"12 of 12 runs done" in first.stdout
    assert second.stdout == first.stdout
    assert (first.stderr.split(), second.stderr.split()) == ([b"torch", b"sklearn"], [])


@pytest.mark.parametrize(
    "study",
    [
        digits(),
        digits(methods="all", requests=["class=3", "random_tenth"], tier="fast"),
        digits(methods=[{"finetune": {"masks": ["grad:0.3", "random:0.3:parameter"]}}, "salun"]),
        digits(methods=[{"ssd": {"preset": "paper", "grid": {"selection": [5, 10.5]}}}]),
        digits(cases=["digits", "demand"], requests={"digits": ["class=3"], "demand": ["range"]}),
        digits(tier="strong", models=8, design="REUSE", methods=["auto"]),
    ],
)
def test_the_plan_that_is_read_is_the_plan_that_was_kept(study, store, monkeypatch):
    made = make_plan(study)
    keep_plan(study, store, made)
    monkeypatch.setattr(study_plan, "make_plan", None)  # it may not be needed
    assert load_or_make_plan(study, store) == made


def test_running_a_study_keeps_its_plan_and_showing_or_planning_it_does_not(store, cache):
    study = small(seeds=1)
    show(study, store)
    plan(study, store, cache)
    assert kept_plans(store) == []
    run(study, store, cache)
    assert kept_plans(store) == [("toy", plan_digest(study))]
    wider = small(seeds=2)
    run(wider, store, cache)
    assert kept_plans(store) == [("toy", plan_digest(wider))]


def test_trials_of_a_search_keep_no_plan(store, cache, tmp_path):
    pytest.importorskip("optuna")
    tuning = {
        "requests": ["class=0"], "seeds": [900], "trials": 2, "folder": str(tmp_path / "r"),
    }  # fmt: skip
    tune(small(methods=["ssd"], seeds=1, oracles=2, tune=tuning), store, cache)
    assert kept_plans(store) == []


def test_a_study_that_changed_since_it_ran_is_planned_anew(store):
    keep_plan(digits(), store, make_plan(digits()))
    wider = digits(seeds=3)
    assert load_or_make_plan(wider, store) == make_plan(wider)


def test_the_study_decides():
    studies = [
        digits(),
        digits(name="other"),
        digits(seeds=3),
        digits(requests=["class=5"]),
        digits(methods=["ssd"]),
        digits(methods=[{"ssd": {"settings": {"selection": 1}}}]),
        digits(methods=[{"ssd": {"settings": {"selection": 1.0}}}]),
        digits(design="REUSE"),
        digits(precision="bf16"),
    ]
    assert len({plan_digest(s) for s in studies}) == len(studies)
    assert plan_digest(digits()) == plan_digest(digits())


@pytest.mark.parametrize("name", ["__version__", "NUMERICS", "MEASURES"])
def test_the_versions_of_the_package_decide(name, monkeypatch):
    before = plan_digest(digits())
    monkeypatch.setattr(study_plan, name, 999)
    assert plan_digest(digits()) != before


@pytest.mark.parametrize("kind", ["a recipe", "a request", "a tuned recipe"])
def test_a_file_that_the_study_names_decides(kind, tmp_path):
    named = tmp_path / "named.yaml"
    study = {
        "a recipe": {"methods": [{"ssd": {"tuned": str(named)}}]},
        "a request": {"requests": [f"rows=@{named}"]},
        "a tuned recipe": {"tune": {"requests": ["class=5"], "folder": str(tmp_path)}},
    }[kind]
    found = [plan_digest(digits(**study))]
    for text in ("1", "2"):
        named.write_text(text)
        found.append(plan_digest(digits(**study)))
    named.unlink()
    assert len(set(found)) == 3
    assert plan_digest(digits(**study)) == found[0]


# ------------------------------------------------------------------ each case is read once


@pytest.fixture
def reads(monkeypatch):
    """How often the toy case was read."""
    count = []
    made = toys.toy

    def counted():
        count.append(1)
        return made()

    monkeypatch.setattr(toys, "toy", counted)
    return count


def test_a_study_reads_its_case_once(store, cache, reads):
    run(small(requests=["class=1", "class=2", "rows=0:5"], seeds=2), store, cache)
    assert len(reads) == 1
    assert len(store.runs()) == 12


def test_a_plan_reads_its_case_once(store, cache, reads):
    found = plan(small(requests=["class=1", "class=2"]), store, cache)
    assert len(reads) == 1
    assert len(found.todo) == 8


def test_a_search_of_many_trials_reads_its_case_once(store, cache, reads, tmp_path):
    pytest.importorskip("optuna")
    tuning = {
        "requests": ["class=0", "class=2"], "seeds": [900], "trials": 3,
        "folder": str(tmp_path / "r"),
    }  # fmt: skip
    tune(small(methods=["ssd"], seeds=1, oracles=2, tune=tuning), store, cache)
    assert len(reads) == 1


def test_a_study_that_is_shown_from_its_plan_reads_no_case(store, cache, reads):
    study = small(seeds=1)
    run(study, store, cache)
    reads.clear()
    assert show(study, store).done == 2
    assert reads == []


# ------------------------------------------------------------------ is a run finished?


@pytest.mark.parametrize(
    ("outcome", "retried", "finished"),
    [
        (None, None, False),
        (("cancelled", "t1"), None, False),
        (("done", "t1"), None, True),
        (("failed", "t1"), None, True),
        (("failed", "t1"), "t1", False),
        (("failed", "t2"), "t1", True),
        (("done", "t1"), "t1", True),
    ],
)
def test_a_run_is_finished_when_done_or_failed_and_not_tried_again(outcome, retried, finished):
    assert is_finished(outcome, retried) is finished


def test_a_plan_of_other_rows_than_those_that_are_read_now_runs_nothing(store, cache):
    study = small(cases=[f"{HERE}:restless"], seeds=1, methods=["ssd"])
    run(study, store, cache, planned=make_plan(study))
    (failed,) = store.runs()
    assert failed.status == "failed"
    assert "is no longer what it was" in failed.error
    assert list(cache.entries()) == []
