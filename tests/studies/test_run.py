"""A study is carried out once, whoever works on it and however often it is killed."""

import json
import multiprocessing
import os
import select
import sqlite3
import subprocess
import sys
import time

import pytest
import torch
import yaml

from tests.studies.conftest import small, words
from tests.studies.toys import HERE, work
from unlearnkit.cache import Cache
from unlearnkit.cli import main
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import NullReporter, Runtime
from unlearnkit.oracles import oracle, train_original
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import Outcome, run
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.plan import plan, summary
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.unlearning.run_method import run_method

BROKEN = {"finetune": {"settings": {"run": {"kind": "tuning", "lr": 1e30}}}}
LABEL = "finetune run.kind=tuning run.lr=1e+30"
TIMES = ("cost_seconds",)
LOG = """
CREATE TABLE log (key TEXT, status TEXT);
CREATE TRIGGER logged AFTER INSERT ON run BEGIN
    INSERT INTO log VALUES (new.key, new.status);
END;
"""


def numbers(store):
    """All that a store holds, times apart."""
    return {
        r.key: (
            r.status,
            r.case_name,
            r.request,
            r.seed,
            r.settings,
            r.forward,
            r.backward,
            [m for m in store.measurements(r.key) if m.metric not in TIMES],
            {k: v for k, v in store.facts(r.key).items() if k != "audit_seconds"},
        )
        for r in store.runs()
    }


def log_every_put(path):
    """Let SQLite itself note each run that is put, so that none can be put twice unseen."""
    Store(path).close()
    db = sqlite3.connect(path)
    db.executescript(LOG)
    db.close()


def put(path):
    db = sqlite3.connect(path)
    found = [key for (key,) in db.execute("SELECT key FROM log")]
    db.close()
    return found


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call the command on a study's words in this process; exit code, stdout and stderr."""

    def call(verb, study, *more):
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(study))
        monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
        given = ["study", verb, file, "--store", tmp_path / "s.sqlite", *more]
        monkeypatch.setattr("sys.argv", ["unlearnkit", *map(str, given)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return call


def worker(study, store, cache):
    """Start a process that works on a study; it is forked, so that it starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.studies.warm"])
    process = context.Process(target=work, args=(study, store, cache))
    process.start()
    return process


def test_a_run_is_kept_with_the_numbers_of_its_three_kinds_of_model(store, cache):
    study = small(seeds=1, methods=["ssd"], oracles=2)
    assert run(study, store, cache) == Outcome(done=1, failed=0, skipped=0)
    (kept,) = store.runs()
    (planned,) = expand(study)
    assert (kept.key, kept.kind, kept.method) == (planned.key, "study", "ssd")
    assert kept.settings == planned.settings
    by_who = {}
    for m in store.measurements(kept.key):
        by_who.setdefault(m.metric, {})[m.who] = m.value
    assert set(by_who["accuracy_forget"]) == {"unlearned", "original", "oracle 0", "oracle 1"}
    facts = store.facts(kept.key)
    assert facts["label"] == "ssd"
    assert facts["verdict"] == facts["verdicts"].split(", ")[0]


def test_the_kept_cost_is_that_of_the_same_call_by_hand(store, cache):
    study = small(seeds=[1], methods=["finetune"])
    run(study, store, cache)
    subject = StudyProblems().of_run(expand(study)[0])
    case, request = subject.case, subject.request
    done = run_method(
        train_original(case, seed=1).model, case, request, "finetune", Runtime(seed=1)
    )
    truth = oracle(case, request, seeds=1)
    (kept,) = store.runs()
    assert (kept.forward, kept.backward) == (done.cost.forward, done.cost.backward)
    cost = {m.metric: m.value for m in store.measurements(kept.key) if "cost" in m.metric}
    whole = truth.runs[0].cost
    assert cost["cost_ratio"] == pytest.approx(done.cost.work / whole.work, rel=1e-12)
    assert cost["cost_backward_ratio"] == pytest.approx(done.cost.backward / whole.backward)
    assert cost["cost_seconds"] == kept.seconds


def test_what_is_there_is_not_done_again(store, cache):
    log_every_put(store.path)
    study = small()
    run(study, store, cache)
    assert run(study, store, cache) == Outcome(done=0, failed=0, skipped=4)
    wider = small(seeds=3)
    assert run(wider, store, cache) == Outcome(done=2, failed=0, skipped=4)
    assert sorted(put(store.path)) == sorted(r.key for r in expand(wider))


def test_a_failing_method_is_a_row_with_its_traceback_and_the_study_goes_on(store, cache):
    study = small(methods=[BROKEN, "ssd"])
    assert run(study, store, cache) == Outcome(done=2, failed=2, skipped=0)
    ended = {(r.method, r.seed): r for r in store.runs()}
    failed = ended["finetune", 1]
    assert failed.status == "failed"
    assert failed.error.startswith("finetune: diverged")
    facts = store.facts(failed.key)
    assert facts["label"] == LABEL
    assert facts["traceback"].startswith("Traceback")
    assert "DivergedError: finetune: diverged" in facts["traceback"]
    assert ended["ssd", 1].status == "done"


def test_a_failure_is_tried_again_only_when_asked(store, cache):
    log_every_put(store.path)
    study = small(methods=[BROKEN], seeds=1)
    for _ in range(2):
        assert run(study, store, cache) == Outcome(done=0, failed=1, skipped=0)
    assert len(put(store.path)) == 1
    assert run(study, store, cache, retry=True) == Outcome(done=0, failed=1, skipped=0)
    assert len(put(store.path)) == 2


def test_the_command_prints_the_count_and_ends_with_1_after_a_failure(command):
    study = words(methods=[BROKEN, "ssd"], seeds=1)
    code, out, err = command("run", study, "--json")
    assert code == 1
    assert json.loads(out) == {"study": "toy", "done": 1, "failed": 1, "skipped": 0}
    assert err.splitlines()[-1].startswith("unlearnkit: study: 1 of 2 runs failed")


def test_the_command_ends_with_0_when_all_is_done(command):
    code, out, err = command("run", words(seeds=1))
    assert (code, out, err) == (0, "done 2, failed 0, done before 0\n", "")


def test_the_plan_is_printed_before_anything_starts(command):
    code, out, _ = command("plan", words())
    lines = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert code == 0
    assert lines["design"] == "FULL"
    assert lines["runs"] == "4: 4 to do, 0 done, 0 failed"
    assert lines["oracles"] == "1 to train, 0 cached"
    _, out, _ = command("plan", words(), "--json")
    assert len(json.loads(out)["todo"]) == 4


MANY = words(seeds=2, methods=["finetune", "ssd", BROKEN])


@pytest.mark.full_lessons
def test_killed_again_and_again_it_ends_with_what_an_uninterrupted_one_has(store, cache, tmp_path):
    run(small(**MANY), store, cache)
    path = tmp_path / "killed.sqlite"
    log_every_put(path)
    killed = 0
    for step in range(30):
        process = worker(MANY, path, tmp_path / "other")
        process.join(0.02 + 0.02 * step)
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        if process.exitcode == 0:
            break
    assert killed >= 5
    if process.exitcode != 0:
        process = worker(MANY, path, tmp_path / "other")
        process.join()
    assert process.exitcode == 0
    assert sorted(put(path)) == sorted(r.key for r in expand(small(**MANY)))
    with Store(path) as other:
        assert numbers(other) == numbers(store)


@pytest.mark.full_lessons
def test_several_processes_on_one_store_share_the_work(store, cache, tmp_path):
    run(small(**MANY), store, cache)
    path = tmp_path / "shared.sqlite"
    log_every_put(path)
    others = [worker(MANY, path, tmp_path / "other") for _ in range(2)]
    with Store(path) as shared:
        outcome = run(small(**MANY), shared, Cache(tmp_path / "other"), jobs=2)
        for process in others:
            process.join()
        assert outcome == Outcome(done=4, failed=2, skipped=0)
        assert [p.exitcode for p in others] == [0, 0]
        assert sorted(put(path)) == sorted(r.key for r in expand(small(**MANY)))
        assert numbers(shared) == numbers(store)
    trained = [e.key["kind"] for e in Cache(tmp_path / "other").entries()]
    assert sorted(trained) == ["oracle", "original", "original"]
    assert list((tmp_path / ".shared.sqlite.locks").iterdir()) == []


def test_a_worker_that_dies_is_told_and_what_it_left_is_done_the_next_time(
    store, cache, monkeypatch
):
    monkeypatch.setenv("UNLEARNKIT_TOY_DIES", "1")
    study = small(cases=[f"{HERE}:deadly"], seeds=1, methods=["ssd"])
    with pytest.raises(InputError, match=r"1 of 1 runs are not finished, because worker"):
        run(study, store, cache, jobs=2)
    monkeypatch.delenv("UNLEARNKIT_TOY_DIES")
    assert run(study, store, cache) == Outcome(done=1, failed=0, skipped=0)


def named(pipe, count):
    """The processes that have named themselves in a pipe."""
    text = ""
    while text.count("\n") < count:
        assert select.select([pipe], [], [], 60)[0], "no worker came so far"
        text += os.read(pipe, 1000).decode()
    return [int(line) for line in text.splitlines()]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system cannot wait for strangers")
def test_workers_end_with_a_command_that_is_killed_and_nothing_is_lost_or_done_twice(
    store, cache, tmp_path
):
    study = words(cases=[f"{HERE}:busy"], seeds=1, methods=["ssd"])
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    log_every_put(store.path)
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    given = ["study", "run", file, "--store", store.path, "--jobs", "2"]
    told = {"UNLEARNKIT_TOY_BUSY": str(tmp_path / "pipe"), "UNLEARNKIT_CACHE": str(cache.root)}
    command = subprocess.Popen(
        [sys.executable, "-m", "unlearnkit", *map(str, given)], env={**os.environ, **told}
    )
    workers = [os.pidfd_open(pid) for pid in named(pipe, 2)]
    command.kill()
    command.wait()
    killed = time.monotonic()
    for w in workers:
        left = max(0.0, killed + 2 - time.monotonic())
        assert select.select([w], [], [], left)[0], "a worker outlives its command"
    for end in (pipe, *workers):
        os.close(end)
    assert put(store.path) == []
    assert run(small(**study), store, cache) == Outcome(done=1, failed=0, skipped=0)
    assert put(store.path) == [r.key for r in expand(small(**study))]


class Late(Store):
    """A store in which another process finishes each run between our look and our lock."""

    looked = 0

    def status(self, key):
        self.looked += 1
        return None if self.looked % 2 else super().status(key)


def test_a_run_that_is_finished_just_before_it_is_taken_is_not_done_again(store, cache):
    run(small(), store, cache)
    log_every_put(store.path)
    with Late(store.path) as late:
        run(small(), late, cache)
    assert put(store.path) == []


def test_no_jobs_are_refused(store, cache):
    with pytest.raises(InputError, match="jobs must be at least 1, got 0"):
        run(small(), store, cache, jobs=0)


def test_a_half_written_model_is_trained_again(store, cache):
    study = small(seeds=1, methods=["ssd"])
    run(study, store, cache)
    want = numbers(store)
    for entry in cache.entries():
        entry.path.with_suffix(".json").unlink()
        entry.path.write_bytes(b"half")
    with Store(store.path.with_name("again.sqlite")) as again:
        run(study, again, cache)
        assert numbers(again) == want


class Heard:
    """A reporter that remembers."""

    def __init__(self):
        self.steps, self.notes = [], []

    def progress(self, what, done, total):
        self.steps.append((what, done, total))

    def note(self, text):
        self.notes.append(text)


def test_progress_tells_what_is_done_running_and_failed(store, cache):
    heard = Heard()
    run(small(methods=[BROKEN, "ssd"], seeds=1), store, cache, reporter=heard)
    assert heard.steps[:2] == [("runs", 0, 2), ("running", 1, 1)]
    assert heard.steps[-3:] == [("runs", 2, 2), ("running", 0, 1), ("failed", 1, 2)]


def test_reuse_warns_of_a_method_that_draws_nothing_and_full_does_not(store, cache):
    study = small(methods=["ssd", "finetune"], seeds=2, design="REUSE")
    heard = Heard()
    run(study, store, cache, reporter=heard)
    (told,) = heard.notes
    assert told.startswith("REUSE: ssd gave the same model for different seeds")
    assert plan(study, store, cache).warnings == (told,)
    full = Heard()
    run(small(methods=["ssd", "finetune"], seeds=2), store, cache, reporter=full)
    assert full.notes == []


def test_a_plan_counts_runs_and_models_and_trains_nothing(store, cache):
    study = small(seeds=3, oracles=2)
    found = plan(study, store, cache)
    assert [n.kind for n in found.models].count("oracle") == 2
    assert [n.kind for n in found.models].count("original") == 3
    assert (len(found.todo), found.done, found.failed) == (6, 0, 0)
    assert summary(found)["time"] == "unknown: nothing like it was measured here yet"
    assert list(cache.entries()) == []


def test_a_plan_knows_what_is_there_and_estimates_the_rest_from_it(store, cache):
    run(small(seeds=1), store, cache)
    found = plan(small(seeds=3, oracles=2), store, cache)
    cached = sorted((n.kind, n.seed) for n in found.models if n.cached)
    assert cached == [("oracle", 1000), ("original", 0)]
    assert summary(found)["runs"] == "6: 6 to do, 0 done, 0 failed"
    more = plan(small(seeds=3), store, cache)
    assert summary(more)["runs"] == "6: 4 to do, 2 done, 0 failed"
    assert summary(more)["originals"] == "2 to train, 0 cached"
    runs = {r.method: r for r in store.runs()}
    train = [e.facts["seconds"] for e in cache.entries()]
    took = [r.seconds + float(store.facts(r.key)["audit_seconds"]) for r in runs.values()]
    work = {"original": 60, "oracle": 40}
    rate = sum(train) / sum(work.values())
    assert more.seconds == pytest.approx(2 * rate * 60 + 2 * sum(took), rel=1e-3)
    assert more.unmeasured == 0


def test_a_finished_study_needs_no_time(store, cache):
    run(small(seeds=1), store, cache)
    found = plan(small(seeds=1), store, cache)
    assert summary(found)["time"] == "none"
    assert found.todo == ()


def tensors_of(cache):
    """Every model in a cache by its key, as bytes."""
    return {
        e.name: {
            n: (t.dtype, tuple(t.shape), t.numpy().tobytes())
            for n, t in cache.get(e.key, lambda: 1 / 0).tensors.items()
        }
        for e in cache.entries()
    }


@pytest.mark.exhaustive
@pytest.mark.full_lessons
def test_results_do_not_depend_on_the_number_of_jobs(store, cache, tmp_path):
    study = small(cases=[f"{HERE}:slow_toy"], seeds=2, methods=["finetune"], oracles=3)
    run(study, store, cache, jobs=1)
    with Store(tmp_path / "two.sqlite") as other:
        run(study, other, Cache(tmp_path / "two"), jobs=2)
        assert numbers(other) == numbers(store)
    models = tensors_of(cache)
    assert len(models) == 5
    assert tensors_of(Cache(tmp_path / "two")) == models


class Threads(NullReporter):
    """Notes with how many threads torch computes when the first progress is told."""

    def __init__(self):
        self.seen = []

    def progress(self, what, done, total):
        self.seen.append(torch.get_num_threads())


def test_a_study_computes_with_one_thread_and_gives_the_others_back(store, cache):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        heard = Threads()
        run(small(seeds=1, methods=["ssd"]), store, cache, reporter=heard)
        assert heard.seen[0] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
