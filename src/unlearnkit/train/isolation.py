"""Runs that leave the global random generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unlearnkit.core.runtime import Runtime


@contextmanager
def seeded(rt: Runtime, stream: str = "global") -> Iterator[None]:
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
