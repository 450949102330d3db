"""Peak memory and time of a strong audit's table of 64 models of each kind, above its signals."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from benchmarks.measure import Fact
from benchmarks.memory import peak
from unlearnkit.auditing.strong.cost_plan import table_seconds
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.core.runtime import Runtime

MODELS = 64
ROWS = (5_000, 20_000, 50_000)
KINDS = ("original", "unlearned", "oracle", "floor", PLACEBO)
SECTIONS = ("forget", "retain", "held_out", "population", "test")
GOAL = 1.0
WITHIN = 2.0


def run() -> Iterator[Fact]:
    """Yield the peak of a process of its own, and its time, for each number of rows."""
    for rows in ROWS:
        child = [sys.executable, "-m", "benchmarks.strong_memory", str(rows)]
        done = subprocess.run(child, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        how = (
            f"{MODELS} models of each of {len(KINDS)} kinds, {rows} rows in each of"
            f" {len(SECTIONS)} sections: {found['data']:.2f} GiB of signals"
        )
        yield Fact(
            f"peak memory of the strong table: {rows} rows",
            found["peak"],
            "GiB",
            goal=GOAL,
            how=how,
        )
        yield Fact(
            f"time of the strong table against what was estimated: {rows} rows",
            found["seconds"] / found["estimate"],
            goal=WITHIN,
            how=f"{found['seconds']:.0f} s, estimated {found['estimate']:.0f} s",
        )


def signals(rows: int, models: int = MODELS) -> MarginMatrix:
    """Return made signals: retrained models alike, originals surer of what they had."""
    rng = torch.Generator().manual_seed(0)
    members = tuple(ModelId(who, seed) for who in KINDS for seed in range(models))
    columns = {name: torch.arange(rows) for name in SECTIONS}
    shape = len(members), rows * len(SECTIONS)
    margins = torch.empty(shape, dtype=torch.float64).normal_(generator=rng)
    margins[:models, : 2 * rows] += 2.0
    errors, codes = (margins < 0).float(), torch.zeros(shape, dtype=torch.uint8)
    return MarginMatrix(margins, codes, errors, members, columns)


def measured(rows: int) -> dict[str, float]:
    """Return the peak above the signals in GiB, their size, the seconds and their estimate."""
    estimate = table_seconds(MODELS, rows)
    strong_table(signals(40), Runtime())  # so that what is imported meanwhile does not count
    found = signals(rows)
    size = found.margins.nbytes + found.errors.nbytes + found.codes.nbytes
    before, start = peak(), time.perf_counter()
    strong_table(found, Runtime())
    return {
        "peak": (peak() - before) / 2**30,
        "data": size / 2**30,
        "seconds": time.perf_counter() - start,
        "estimate": estimate,
    }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]))))
