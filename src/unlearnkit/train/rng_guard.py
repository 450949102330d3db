"""Guards of global state: random generators and torch settings are restored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from unlearnkit.core.runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def seeded_global_rngs(rt: Runtime, stream: str = "global") -> Iterator[None]:
    """Seed all global generators from a stream; on leaving, they are as they were.

    Layers that draw by themselves (dropout, initialisers) use torch's generators, and data sets
    that augment their rows use Python's or NumPy's. Of the accelerators only the run's own is
    touched: ``torch.manual_seed`` would seed all of them.
    """
    seed = rt.rng(stream).initial_seed()
    generators = _generators(rt.device)
    states = [g.get_state() for g in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one
    try:
        for g in generators:
            g.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # the global one
        yield
    finally:
        for g, state in zip(generators, states, strict=True):
            g.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  # the global one


def _generators(device: torch.device) -> list[torch.Generator]:
    """Return torch's global generators that a run on this device can draw from."""
    if device.type == "cpu":
        return [torch.default_generator]
    if device.type == "mps":
        return [torch.default_generator, torch.mps._get_default_mps_generator()]
    chip = torch.get_device_module(device)
    chip.init()
    index = chip.current_device() if device.index is None else device.index
    return [torch.default_generator, chip.default_generators[index]]


@contextmanager
def peak_memory(rt: Runtime) -> Iterator[None]:
    """Put the most memory that an accelerator holds in the context on the run's meter."""
    if rt.device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(rt.device)
    yield
    rt.cost.peak_bytes = max(rt.cost.peak_bytes, torch.cuda.max_memory_allocated(rt.device))


@contextmanager
def own_settings(device: torch.device | None = None) -> Iterator[None]:
    """Compute with gradients on and autocast off, whatever the caller's context; restore settings.

    A call under ``torch.no_grad()``, ``torch.inference_mode()`` or ``torch.autocast()`` then gives
    the numbers of a plain call. Threads, default type and device, determinism and precision flags
    come back as they were, whatever a plug-in did to them.
    """
    kinds = {"cpu", *([] if device is None else [device.type])}
    settings = [read() for read, _ in _SETTINGS]
    try:
        with ExitStack() as plain:
            plain.enter_context(torch.inference_mode(False))
            plain.enter_context(torch.enable_grad())
            for kind in sorted(kinds):
                plain.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for (read, restore), was in zip(_SETTINGS, settings, strict=True):
            if read() != was:
                restore(was)


def as_plain_call(fn: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs under ``own_settings``."""

    @wraps(fn)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        places = [a.device for a in (*args, *kwargs.values()) if isinstance(a, Runtime)]
        with own_settings(places[0] if places else None):
            return fn(*args, **kwargs)

    return plain


def _cudnn() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return bool(cudnn.enabled), bool(cudnn.deterministic), bool(cudnn.benchmark)


def _set_cudnn(was: tuple[bool, bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.deterministic, cudnn.benchmark = was


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (
        torch.get_default_device,
        lambda was: torch.set_default_device(None if was.type == "cpu" else was),
    ),
    (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda was: torch.use_deterministic_algorithms(was[0], warn_only=was[1]),
    ),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda was: torch.autograd.set_detect_anomaly(*was),
    ),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_cudnn, _set_cudnn),
)
"""How each setting of torch is read and set."""
