"""Executors: who works on a study's queue, processes or Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import torch

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.execution.queue import PAUSE, RunQueue
from unlearnkit.studies.execution.worker import Worker
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.shared_models import batches, models

if TYPE_CHECKING:
    from unlearnkit.studies.execution.ray_executor import RayExecutor


@dataclass(frozen=True)
class InProcessExecutor:
    """This process, with one thread of torch's, as every worker has: equal bits, whoever works."""

    jobs: int = 1
    problems: StudyProblems | None = None
    """Of the study, where this process has read them."""

    def work(
        self, line: RunQueue, store: Store, cache: Cache, on_progress: Callable[[int], None]
    ) -> None:
        """Carry out a queue, run by run; ``on_progress`` receives the number of busy workers."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            line.work(store, Worker(cache, self.problems), lambda: on_progress(1))
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class ProcessExecutor:
    """Several processes on this machine, a thread each."""

    jobs: int

    def work(
        self, line: RunQueue, store: Store, cache: Cache, on_progress: Callable[[int], None]
    ) -> None:
        """Carry out a queue; models that many runs need are trained first, shared out."""
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(
                target=_worker, args=(line, store.path, cache.root, i, self.jobs), daemon=True
            )
            for i in range(self.jobs)
        ]
        try:
            for w in workers:
                w.start()
            while any(w.is_alive() for w in workers):
                alive = [w.sentinel for w in workers if w.is_alive()]
                on_progress(len(alive))
                wait(alive, timeout=PAUSE)
        finally:
            for w in workers:
                if w.pid is not None:
                    w.terminate()
                    w.join()


def executor(
    jobs: int | None = None, ray: str | None = None, problems: StudyProblems | None = None
) -> InProcessExecutor | ProcessExecutor | RayExecutor:
    """Return the executor for a number of processes, or for a Ray cluster of this address."""
    if jobs is not None and jobs < 1:
        raise InputError(f"study: jobs must be at least 1, got {jobs}")
    if ray is not None:
        from unlearnkit.studies.execution.ray_executor import RayExecutor  # needs the extra

        return RayExecutor(ray, jobs, problems)
    return InProcessExecutor(problems=problems) if jobs in (None, 1) else ProcessExecutor(jobs)


def _worker(line: RunQueue, store: Path, cache: Path, number: int, jobs: int) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with Store(store) as kept:
        worker = Worker(Cache(cache))
        waiting = [r for r in line.runs if not line.finished(kept, r)]
        lacking = [m for m in models(waiting, worker.problems) if m.key not in worker.cache]
        for batch in batches(lacking, worker.problems)[number::jobs]:
            worker.train(batch)
        line.work(kept, worker, lambda: None)


def _end_with_parent() -> None:
    """End this process with its parent; results are written whole and locks are released."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
