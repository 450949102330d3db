"""Ray executor: the runs of a study as tasks of a Ray cluster.

This process alone touches the store and its locks, so that machines need not share a file system:
a task gets a run and returns what came of it. Models that many runs need are kept in the cache of
the machine that trained them, so that machines which share that folder train each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.execution.queue import PAUSE, RunQueue, drop_lock, run_lock
from unlearnkit.studies.execution.worker import RunRecord, Worker
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.planning.shared_models import ModelBatch, batches, models
from unlearnkit.train.ray_cluster import capacity, ray_session, task_resources, why_lost


@dataclass
class RayExecutor:
    """A Ray cluster, a processor (and a GPU where the study wants one) for each run."""

    run_key_of: str
    wanted: int | None = None
    """Most runs at once; as many as the cluster has processors when None."""

    problems: StudyProblems | None = None
    """Of the study, where this process has read them."""

    jobs: int = field(default=1, init=False)

    def work(
        self, line: RunQueue, store: Store, cache: Cache, on_progress: Callable[[int], None]
    ) -> None:
        """Carry out a queue: first models, each once, then runs."""
        with ray_session(self.run_key_of, self.wanted, "study") as ray:
            device = torch.device(line.runs[0].device)
            there = capacity(ray, device, "study")
            self.jobs = min(self.wanted or there, there)
            task = ray.remote(**task_resources(device))
            train, carry_out = task(_train), task(_carry_out)
            waiting = [r for r in line.runs if not line.finished(store, r)]
            problems = self.problems or StudyProblems()
            lacking = [m for m in models(waiting, problems) if m.key not in cache]
            parts = batches(lacking, problems)
            self._train(ray, [train.remote(b, cache.root) for b in parts], on_progress)
            start = lambda run: carry_out.remote(run, cache.root)  # noqa: E731  # a task, by run
            self._carry_out(ray, start, line, store, on_progress)

    def _train(self, ray: Any, tasks: Sequence[Any], on_progress: Callable[[int], None]) -> None:
        left = list(tasks)
        while left:
            on_progress(min(self.jobs, len(left)))
            _, left = ray.wait(left, num_returns=1, timeout=PAUSE)

    def _carry_out(
        self,
        ray: Any,
        start: Callable[[RunSpec], Any],
        line: RunQueue,
        store: Store,
        on_progress: Callable[[int], None],
    ) -> None:
        """Keep so many tasks going; each run is locked from its start until it is kept."""
        left, flying = list(line.runs), dict[Any, tuple[RunSpec, ExitStack]]()
        lost: list[str] = []
        with ExitStack() as locks:
            while left or flying:
                while len(flying) < self.jobs and (found := _next(left, line, store)):
                    locks.push(found[1])
                    flying[start(found[0])] = found
                on_progress(len(flying))
                if flying:
                    lost += _land(ray, flying, line, store)
                elif left:
                    line.wait_for(store, left[0])
        if lost:
            raise InputError(
                f"study: {len(lost)} runs are not finished, because Ray lost their tasks:"
                f" {lost[-1]}; run the study again"
            )


def _next(left: list[RunSpec], line: RunQueue, store: Store) -> tuple[RunSpec, ExitStack] | None:
    """Take the next run that waits, with its lock; those that others hold go to the end."""
    for _ in range(len(left)):
        run, lock = left.pop(0), ExitStack()
        if line.finished(store, run):
            continue
        if not lock.enter_context(run_lock(store.path, run)):
            left.append(run)
        elif line.finished(store, run):
            drop_lock(store.path, run)
            lock.close()
        else:
            return run, lock
    return None


def _land(
    ray: Any, flying: dict[Any, tuple[RunSpec, ExitStack]], line: RunQueue, store: Store
) -> list[str]:
    """Keep what is ready, and return why tasks were lost."""
    ready, _ = ray.wait(list(flying), num_returns=1, timeout=PAUSE)
    lost = []
    for task in ready:
        run, lock = flying.pop(task)
        why = _keep(ray, task, store)
        if why is not None:
            lost.append(why)
        if line.finished(store, run):
            drop_lock(store.path, run)
        lock.close()
    return lost


def _keep(ray: Any, task: Any, store: Store) -> str | None:
    """Put a run into the store; return why there is nothing to put where its task was lost."""
    try:
        kept: RunRecord = ray.get(task)
    except ray.exceptions.RayError as e:
        return why_lost(e)
    kept.save(store)
    return None


@lru_cache(maxsize=1)
def _worker(cache: Path) -> Worker:
    """Return this process' worker: it has read the problems of earlier runs."""
    torch.set_num_threads(1)
    return Worker(Cache(cache))


def _train(batch: ModelBatch, cache: Path) -> None:
    _worker(cache).train(batch)


def _carry_out(run: RunSpec, cache: Path) -> RunRecord:
    return _worker(cache).carry_out(run)
