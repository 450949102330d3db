"""Run queue: the open runs of a study, shared by locks.

Every run has its content address, and a lock of that name next to the store. Whoever holds the
lock carries the run out and puts it into the store whole. So it does not matter how many processes
work on a study, whether one command started them, or whether one of them was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from unlearnkit.store import Store
from unlearnkit.studies.execution.worker import Worker, cancelled_record
from unlearnkit.studies.planning.run_spec import RunSpec, is_finished

PAUSE = 0.2
"""Seconds between two looks at what other processes have done."""


@dataclass(frozen=True)
class RunQueue:
    """The runs that wait, in order."""

    runs: tuple[RunSpec, ...]
    again: Mapping[str, str]
    """Failed runs that are to be tried again, with the time at which they had failed."""

    def finished(self, store: Store, run: RunSpec) -> bool:
        """Return whether a run needs no more work."""
        return is_finished(store.status(run.key), self.again.get(run.key))

    def work(self, store: Store, worker: Worker, on_progress: Callable[[], None]) -> None:
        """Carry out what no other process has taken; then stand by until all is finished."""
        left: Sequence[RunSpec] = self.runs
        while left:
            busy = []
            for run in left:
                if self.finished(store, run):
                    continue
                on_progress()
                with run_lock(store.path, run) as mine:
                    if not mine:
                        busy.append(run)
                        continue
                    if not self.finished(store, run):
                        try:
                            kept = worker.carry_out(run)
                        except KeyboardInterrupt:
                            cancelled_record(run).save(store)
                            raise
                        kept.save(store)
                    drop_lock(store.path, run)
            if busy:
                self.wait_for(store, busy[0])
            left = busy

    def wait_for(self, store: Store, run: RunSpec) -> None:
        """Wait a moment for a run that another process holds."""
        with run_lock(store.path, run, patience=PAUSE) as mine:
            if mine and self.finished(store, run):
                drop_lock(store.path, run)


@contextmanager
def run_lock(store: Path, run: RunSpec, patience: float = 0.0) -> Iterator[bool]:
    """Hold a run's lock, or say that another process does; a killed process holds none."""
    path = _lock(store, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=PAUSE / 4)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(store: Path, run: RunSpec) -> Path:
    return store.with_name(f".{store.name}.locks") / f"{run.key}.lock"


def drop_lock(store: Path, run: RunSpec) -> None:
    """Remove the lock of a finished run: whoever gets hold of it finds the run finished."""
    with suppress(OSError):
        _lock(store, run).unlink()
