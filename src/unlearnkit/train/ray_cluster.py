"""Ray cluster: connections, and functions run as its tasks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any

import torch

from unlearnkit.core.errors import InputError

LOCAL = "local"
RETRIES = 2
"""How often a task is started again whose worker was lost."""

_PATIENCE = 5.0
"""Seconds in which a cluster must answer."""

_MEMORY = 128 * 2**20
"""Bytes that a cluster of our own sets aside for objects; beyond, they go to disk."""


@contextmanager
def ray_session(address: str, processors: int | None, who: str) -> Iterator[Any]:
    """Yield the module ``ray``, connected; a connection that exists is used and left open.

    ``local`` starts a cluster here with so many processors (all when None) that ends with the
    context.

    Raises:
        InputError: If the cluster cannot be reached; ``who`` is named in the message.
    """
    ray = _ray(who)
    if ray.is_initialized():
        yield ray
        return
    check_reachable(address, who)
    more: dict[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        more = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": _MEMORY}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **more)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise InputError(_unreachable(address, e, who)) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def check_reachable(address: str, who: str) -> None:
    """Refuse an address that does not answer; Ray itself would try for many minutes.

    Raises:
        InputError: If there is no answer.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as e:
            raise InputError(_unreachable(address, e, who)) from None


def capacity(ray: Any, device: torch.device, who: str) -> int:
    """Return how many tasks a cluster can run at once, each on a processor or a GPU; at least 1.

    Raises:
        InputError: If there is no room for one.
    """
    gpu = device.type == "cuda"
    there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
    if there < 1:
        raise InputError(
            f"{who}: the Ray cluster has no {'GPU' if gpu else 'processor'} for device"
            f" {str(device)!r}; choose another cluster or device"
        )
    return there


def task_resources(device: torch.device) -> dict[str, Any]:
    """Return what a task that computes on a device takes of a cluster, and how often it is tried.

    A task whose worker or machine is lost starts anew on another one: its result depends on its
    arguments alone.
    """
    return {"num_cpus": 1, "num_gpus": int(device.type == "cuda"), "max_retries": RETRIES}


def map_tasks(
    ray: Any, task: Any, calls: Iterable[tuple[Any, ...]], at_once: int, who: str
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each call (the arguments of a remote function) with its result, ``at_once`` at a time.

    Raises:
        InputError: If a call was lost.
    """
    left, flying = iter(calls), dict[Any, tuple[Any, ...]]()
    while True:
        for call in islice(left, at_once - len(flying)):
            flying[task.remote(*call)] = call
        if not flying:
            return
        ready, _ = ray.wait(list(flying), num_returns=1)
        for done in ready:
            try:
                made = ray.get(done)
            except ray.exceptions.RayTaskError as e:
                raise e.cause from None
            except ray.exceptions.RayError as e:
                raise InputError(f"{who}: Ray lost a task: {why_lost(e)}; run it again") from None
            yield flying.pop(done), made


def why_lost(e: Exception) -> str:
    """Return in a line why a task was lost."""
    lines = [text.strip() for text in str(e).splitlines() if text.strip()]
    return lines[-1] if lines else type(e).__name__


def _unreachable(address: str, e: Exception, who: str) -> str:
    why = (str(e).strip().splitlines() or [type(e).__name__])[0]
    return f"{who}: cannot reach Ray at {address!r}: {why}; 'local' starts one here"


def _ray(who: str) -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise InputError(f"{who}: Ray is not installed; pip install unlearnkit[ray]") from None
