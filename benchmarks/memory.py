"""Peak memory of an audit of a million rows of stored outputs, above the data."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Fact
from unlearnkit.auditing.metric_table import metric_rows
from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

SIZES = {Split.FORGET: 100_000, Split.RETAIN: 500_000, Split.HELD_OUT: 200_000, Split.TEST: 200_000}
CLASSES = 100
MODELS = ("original", "unlearned", "oracle/0")
GOAL = 1.0


def run() -> Iterator[Fact]:
    """Yield the peak of a process of its own, and the time that the table takes."""
    child = [sys.executable, "-m", "benchmarks.memory"]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    rows = sum(SIZES.values())
    how = (
        f"{rows} rows, {CLASSES} classes, {', '.join(MODELS)}: {found['data']:.2f} GB of outputs;"
        f" {found['metrics']} metrics in {found['seconds']:.0f} s"
    )
    yield Fact("peak memory of an audit of stored outputs", found["peak"], "GB", goal=GOAL, how=how)


def measured() -> dict[str, float]:
    """Return the peak above the data in GB, the data in GB, the metrics and their seconds."""
    rng = torch.Generator().manual_seed(0)
    metrics()
    targets = {s: torch.randint(0, CLASSES, (n,), generator=rng) for s, n in SIZES.items()}
    outputs = {
        who: {s: torch.empty(n, CLASSES).normal_(generator=rng) for s, n in SIZES.items()}
        for who in MODELS
    }
    data = sum(t.nbytes for splits in outputs.values() for t in splits.values())
    e = Evidence.from_outputs(outputs, targets, Classification(CLASSES), Runtime())
    before, start = peak(), time.perf_counter()
    rows = list(metric_rows(e, "reference"))
    return {
        "peak": (peak() - before) / 1e9,
        "data": data / 1e9,
        "metrics": len(rows),
        "seconds": time.perf_counter() - start,
    }


def peak() -> float:
    """Return the most bytes that this process has held.

    On Linux ``ru_maxrss`` would not do: a child begins with what its parent has held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        assert found is not None
        return float(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    print(json.dumps(measured()))
