"""A study on a Ray cluster gives what it gives here, and shares the work in the same way."""

from dataclasses import replace
from importlib.util import find_spec

import pytest

from tests.studies.conftest import small
from tests.studies.test_run import BROKEN, log_every_put, numbers, put
from tests.studies.toys import HERE
from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.execution.executors import InProcessExecutor, ProcessExecutor, executor
from unlearnkit.studies.execution.queue import RunQueue
from unlearnkit.studies.execution.run_study import Outcome, run
from unlearnkit.studies.planning.expand import expand
from unlearnkit.train.ray_cluster import check_reachable

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install unlearnkit[ray]"
)


@needs_ray
@pytest.mark.slow
@pytest.mark.full_lessons
def test_a_study_on_ray_is_that_of_this_process(cluster, store, cache, tmp_path):
    study = small(seeds=1, methods=["ssd", BROKEN])
    assert run(study, store, cache) == Outcome(done=1, failed=1, skipped=0)
    path = tmp_path / "ray.sqlite"
    log_every_put(path)
    with Store(path) as other:
        outcome = run(study, other, Cache(tmp_path / "other"), ray="local")
        assert outcome == Outcome(done=1, failed=1, skipped=0)
        assert numbers(other) == numbers(store)
        again = run(study, other, Cache(tmp_path / "other"), ray="local")
        assert again == Outcome(done=0, failed=1, skipped=1)
    assert sorted(put(path)) == sorted(r.key for r in expand(study))
    assert list((tmp_path / ".ray.sqlite.locks").iterdir()) == []
    kinds = [e.key["kind"] for e in Cache(tmp_path / "other").entries()]
    assert sorted(kinds) == ["oracle", "original"]


@needs_ray
@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_task_that_is_lost_is_told_and_its_run_is_done_the_next_time(cluster, store, cache):
    study = small(cases=[f"{HERE}:homesick"], seeds=1, methods=["ssd"])
    with pytest.raises(InputError, match="1 runs are not finished, because Ray lost their tasks"):
        run(study, store, cache, ray="local")
    assert store.runs() == []
    assert run(study, store, cache) == Outcome(done=1, failed=0, skipped=0)


@needs_ray
@pytest.mark.slow
def test_a_gpu_study_is_refused_by_a_cluster_without_one(cluster, store, cache):
    study = small(seeds=1)
    workers = executor(ray="local")
    line = RunQueue(tuple(replace(r, device="cuda") for r in expand(study)), {})
    with pytest.raises(InputError, match="has no GPU for device 'cuda'"):
        workers.work(line, store, cache, lambda busy: None)


def test_an_address_that_nobody_answers_at_is_refused_at_once():
    with pytest.raises(InputError, match=r"cannot reach Ray at '127.0.0.1:1': .*refused"):
        check_reachable("127.0.0.1:1", "study")


def test_without_ray_one_job_works_here_and_more_in_processes():
    assert executor() == executor(1) == InProcessExecutor()
    assert executor(3) == ProcessExecutor(3)
