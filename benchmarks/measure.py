"""What benchmarks share: facts, and two ways of doing the same thing timed in turn."""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Fact:
    """One measured number, or the reason why there is none."""

    what: str
    """What was measured, in words."""

    value: float | None = None
    unit: str = "ratio"
    low: float | None = None
    """First quartile over repetitions."""

    high: float | None = None
    """Third quartile over repetitions."""

    goal: float | None = None
    """Largest value that is good enough."""

    how: str = ""
    """Repetitions, sizes, and what else a reader needs."""

    skipped: str = ""
    """Why there is no number."""

    def line(self) -> str:
        """Return the fact as a line of JSON, without what is empty."""
        held = {k: v for k, v in asdict(self).items() if v not in (None, "")}
        return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in held.items()})


def skipped(what: str, why: str) -> Fact:
    """Return the fact that something could not be measured."""
    return Fact(what, skipped=why)


def seconds(do: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of one call, garbage collected before and not during."""
    gc.collect()
    gc.disable()
    try:
        start = clock()
        do()
        return clock() - start
    finally:
        gc.enable()


def against(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int,
    goal: float | None = None,
    how: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Fact:
    """Return the median ratio of two times, measured in turn: A B, B A, A B, ...

    Args:
        what: What is compared, in words.
        ours: The numerator.
        theirs: The denominator.
        pairs: Repetitions of each; one more of each comes first and is not counted.
        goal: Largest ratio that is good enough.
        how: What a reader needs to know; the repetitions and times are added.
        clock: Wall time, or ``time.process_time`` for the time of this process's processors, which
            other processes disturb less.

    Returns:
        The ratio with its quartiles over pairs.
    """
    ours(), theirs()
    mine, others = [], []
    for k in range(pairs):
        for do, times in ((ours, mine), (theirs, others))[:: 1 if k % 2 == 0 else -1]:
            times.append(seconds(do, clock))
    ratios = [a / b for a, b in zip(mine, others, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if pairs > 1 else ratios * 3
    spent = f"{_short(statistics.median(mine))} against {_short(statistics.median(others))}"
    told = f"{how}; " if how else ""
    return Fact(what, middle, "ratio", low, high, goal, f"{told}{pairs} pairs, {spent}")


def _short(time: float) -> str:
    return f"{time:.2f} s" if time >= 1 else f"{1e3 * time:.1f} ms"


def machine() -> dict[str, str]:
    """Return what the numbers depend on: processor, cores, threads, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
