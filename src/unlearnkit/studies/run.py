"""Carry out a study: alone, by several processes, and after any interruption.

Every run has its content address, and a lock beside the store under that name. Whoever holds the
lock carries the run out and puts it into the store whole. So it does not matter how many processes
work on a study, whether one command started them, or whether one of them was killed.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Reporter, Silent
from unlearnkit.store import Store
from unlearnkit.studies.designs import design_warnings
from unlearnkit.studies.expand import Planned, expand
from unlearnkit.studies.models import models
from unlearnkit.studies.spec import Study
from unlearnkit.studies.work import Caught, Desk

_PAUSE = 0.2
"""Seconds between two looks at what other processes have done."""


@dataclass(frozen=True)
class Outcome:
    """How many runs of a study ended how."""

    done: int
    """Done since the start, by this process or another."""

    failed: int
    """Failed, now or at an earlier time."""

    skipped: int
    """Done before."""


def run(
    study: Study,
    store: Store,
    cache: Cache,
    *,
    jobs: int = 1,
    retry: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Carry out every run of a study that is not in the store yet.

    A run that fails is a row in the store with its error and traceback, and the study goes on. It
    is not tried again by itself: most failures are the method's answer to its settings.

    Args:
        study: The study.
        store: Where results are, and go.
        cache: Where originals and oracles are, and go.
        jobs: How many local processes work; each computes with one thread. One works in this
            process, with torch's threads as they are.
        retry: Whether runs that failed before are tried again.
        reporter: Hears how many are done, running and failed.

    Returns:
        How it went.

    Raises:
        InputError: If the number of jobs is none, or a worker process died.
    """
    if jobs < 1:
        raise InputError(f"study: jobs must be at least 1, got {jobs}")
    runs = expand(study)
    heard = reporter or Silent()
    before = store.ended("study")
    failures = {r.key: before[r.key][1] for r in runs if _how(before, r) == "failed"}
    line = _Line(runs, failures if retry else {})
    teller = _Teller(heard, store, line, jobs)
    if jobs == 1:
        line.work(store, Desk(cache), lambda: teller.tell(1))
    else:
        _spread(line, store, cache, jobs, teller)
    after = store.ended("study")
    left = sum(not line.over(r, after.get(r.key)) for r in runs)
    if left:
        raise InputError(
            f"study: {left} of {len(runs)} runs are not finished, because worker processes died;"
            " run the study again, with fewer jobs if memory is short"
        )
    teller.tell(0, at_once=True)
    for warning in design_warnings(runs, store):
        heard.note(warning)
    skipped = sum(_how(before, r) == "done" for r in runs)
    failed = sum(_how(after, r) == "failed" for r in runs)
    return Outcome(done=len(runs) - failed - skipped, failed=failed, skipped=skipped)


@dataclass(frozen=True)
class _Line:
    """The runs that wait, in order."""

    runs: tuple[Planned, ...]
    again: Mapping[str, str]
    """Failed runs that are to be tried again, with the time at which they had failed."""

    def over(self, run: Planned, ended: tuple[str, str] | None) -> bool:
        """Return whether a run needs no more work, given how it ended and when it was started."""
        if ended is None or ended[0] == "cancelled":
            return False
        return ended[0] == "done" or self.again.get(run.key) != ended[1]

    def finished(self, store: Store, run: Planned) -> bool:
        """Return whether a run needs no more work."""
        return self.over(run, store.status(run.key))

    def work(
        self,
        store: Store,
        desk: Desk,
        heard: Callable[[], None],
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        """Carry out what no other process has taken; then stand by until all is finished."""
        left: Sequence[Planned] = self.runs
        while left and alive():
            busy = []
            for run in left:
                if not alive():
                    return
                if self.finished(store, run):
                    continue
                heard()
                with _taken(store.path, run) as mine:
                    if not mine:
                        busy.append(run)
                        continue
                    if not self.finished(store, run):
                        desk.carry_out(run, store)
                    _drop_lock(store.path, run)
            if busy:
                with _taken(store.path, busy[0], patience=_PAUSE) as mine:
                    if mine and self.finished(store, busy[0]):
                        _drop_lock(store.path, busy[0])
            left = busy


@contextmanager
def _taken(store: Path, run: Planned, patience: float = 0.0) -> Iterator[bool]:
    """Hold a run's lock, or say that another process does; a killed process holds none."""
    path = _lock(store, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=_PAUSE / 4)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(store: Path, run: Planned) -> Path:
    return store.with_name(f".{store.name}.locks") / f"{run.key}.lock"


def _drop_lock(store: Path, run: Planned) -> None:
    """Remove the lock of a finished run: whoever gets hold of it finds the run finished."""
    with suppress(OSError):
        _lock(store, run).unlink()


def _spread(line: _Line, store: Store, cache: Cache, jobs: int, teller: _Teller) -> None:
    """Let several processes work, and tell how they come along."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(
            target=_worker, args=(line, store.path, cache.root, i, jobs), daemon=True
        )
        for i in range(jobs)
    ]  # fmt: skip
    try:
        for w in workers:
            w.start()
        while any(w.is_alive() for w in workers):
            alive = [w.sentinel for w in workers if w.is_alive()]
            teller.tell(len(alive))
            wait(alive, timeout=_PAUSE)
    finally:
        for w in workers:
            if w.pid is not None:
                w.terminate()
                w.join()


def _worker(line: _Line, store: Path, cache: Path, number: int, jobs: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def alive() -> bool:
        return parent is None or parent.is_alive()

    with Store(store) as kept:
        desk = Desk(Cache(cache))
        waiting = [r for r in line.runs if not line.finished(kept, r)]
        for model in models(waiting, desk)[number::jobs]:
            # What cannot be trained fails again, and for the record, in the run that needs it.
            if alive() and model.key not in desk.cache:
                with Caught():
                    model.train(desk)
        line.work(kept, desk, lambda: None, alive)


def _how(ended: Mapping[str, tuple[str, str]], run: Planned) -> str | None:
    found = ended.get(run.key)
    return None if found is None else found[0]


@dataclass
class _Teller:
    """Says how a study comes along, not more often than anybody can read."""

    heard: Reporter
    store: Store
    line: _Line
    jobs: int
    last: float = field(default=0.0)

    def tell(self, working: int, *, at_once: bool = False) -> None:
        """Report runs finished, running and failed."""
        now = time.monotonic()
        if now < self.last + _PAUSE and not at_once:
            return
        self.last = now
        ended, runs = self.store.ended("study"), self.line.runs
        over = [_how(ended, r) for r in runs if self.line.over(r, ended.get(r.key))]
        self.heard.progress("runs", len(over), len(runs))
        self.heard.progress("running", min(working, len(runs) - len(over)), self.jobs)
        if failed := over.count("failed"):
            self.heard.progress("failed", failed, len(runs))
