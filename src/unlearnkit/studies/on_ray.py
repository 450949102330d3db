"""Runs of a study as tasks of a Ray cluster.

This process alone touches the store and its locks, so that machines need not share a file system:
a task gets a run and returns what came of it. Models that many runs need are kept in the cache of
the machine that trained them, so that machines which share that folder train each of them once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
from unlearnkit.studies.expand import Planned
from unlearnkit.studies.line import PAUSE, Line, drop_lock, taken
from unlearnkit.studies.models import Model, models
from unlearnkit.studies.work import Caught, Desk, Kept

LOCAL = "local"
_PATIENCE = 5.0
"""Seconds in which a cluster must answer."""

_MEMORY = 128 * 2**20
"""Bytes that a cluster of our own sets aside for objects: tasks hand over numbers only."""


@dataclass
class Ray:
    """A Ray cluster, a processor (and a GPU where the study wants one) for each run."""

    address: str
    wanted: int | None = None
    """Most runs at once; as many as the cluster has processors when None."""

    jobs: int = field(default=1, init=False)

    def work(self, line: Line, store: Store, cache: Cache, heard: Callable[[int], None]) -> None:
        """Carry out a line: first models, each once, then runs."""
        ray = _ray()
        with _connected(ray, self.address, self.wanted):
            device = line.runs[0].device
            gpu = device.partition(":")[0] == "cuda"
            there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
            if there < 1:
                raise InputError(
                    f"study: the Ray cluster has no {'GPU' if gpu else 'processor'} for device"
                    f" {device!r}; choose another --ray or device"
                )
            self.jobs = min(self.wanted or there, there)
            needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(gpu), "max_retries": 0}
            train, carry_out = (ray.remote(**needs)(function) for function in (_train, _carry_out))
            waiting = [r for r in line.runs if not line.finished(store, r)]
            lacking = [m for m in models(waiting, Desk(cache)) if m.key not in cache]
            self._train(ray, [train.remote(m, cache.root) for m in lacking], heard)
            start = lambda run: carry_out.remote(run, cache.root)  # noqa: E731  # a task, by run
            self._carry_out(ray, start, line, store, heard)

    def _train(self, ray: Any, tasks: Sequence[Any], heard: Callable[[int], None]) -> None:
        left = list(tasks)
        while left:
            heard(min(self.jobs, len(left)))
            _, left = ray.wait(left, num_returns=1, timeout=PAUSE)

    def _carry_out(
        self,
        ray: Any,
        start: Callable[[Planned], Any],
        line: Line,
        store: Store,
        heard: Callable[[int], None],
    ) -> None:
        """Keep so many tasks going; each run is locked from its start until it is kept."""
        left, flying = list(line.runs), dict[Any, tuple[Planned, ExitStack]]()
        lost: list[str] = []
        with ExitStack() as locks:
            while left or flying:
                while len(flying) < self.jobs and (found := _next(left, line, store)):
                    locks.push(found[1])
                    flying[start(found[0])] = found
                heard(len(flying))
                if flying:
                    lost += _land(ray, flying, line, store)
                elif left:
                    line.stand_by(store, left[0])
        if lost:
            raise InputError(
                f"study: {len(lost)} runs are not finished, because Ray lost their tasks:"
                f" {lost[-1]}; run the study again"
            )


def _next(left: list[Planned], line: Line, store: Store) -> tuple[Planned, ExitStack] | None:
    """Take the next run that waits, with its lock; those that others hold go to the end."""
    for _ in range(len(left)):
        run, lock = left.pop(0), ExitStack()
        if line.finished(store, run):
            continue
        if not lock.enter_context(taken(store.path, run)):
            left.append(run)
        elif line.finished(store, run):
            drop_lock(store.path, run)
            lock.close()
        else:
            return run, lock
    return None


def _land(
    ray: Any, flying: dict[Any, tuple[Planned, ExitStack]], line: Line, store: Store
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
        kept: Kept = ray.get(task)
    except ray.exceptions.RayError as e:
        told = [text.strip() for text in str(e).splitlines() if text.strip()]
        return told[-1] if told else type(e).__name__
    kept.put(store)
    return None


@contextmanager
def _connected(ray: Any, address: str, processors: int | None) -> Iterator[None]:
    """Hold a connection to a cluster; one that the caller has already is used and left."""
    if ray.is_initialized():
        yield
        return
    check_reachable(address)
    more: dict[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        more = {
            "num_cpus": processors,
            "include_dashboard": False,
            "object_store_memory": _MEMORY,
        }
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **more)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise InputError(_unreachable(address, e)) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Refuse a host and port that nobody answers at; Ray itself would try for many minutes.

    Args:
        address: As Ray takes it.

    Raises:
        InputError: If there is no answer.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as e:
            raise InputError(_unreachable(address, e)) from None


def _unreachable(address: str, e: Exception) -> str:
    why = (str(e).strip().splitlines() or [type(e).__name__])[0]
    return f"study: cannot reach Ray at {address!r}: {why}; --ray local starts one here"


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise InputError("study: Ray is not installed; pip install unlearnkit[ray]") from None


@lru_cache(maxsize=1)
def _desk(cache: Path) -> Desk:
    """Return this worker process' desk: the next run often has the same rows."""
    torch.set_num_threads(1)
    return Desk(Cache(cache))


def _train(model: Model, cache: Path) -> None:
    # What cannot be trained fails again, and for the record, in the run that needs it.
    with Caught():
        model.train(_desk(cache))


def _carry_out(run: Planned, cache: Path) -> Kept:
    return _desk(cache).carry_out(run)
