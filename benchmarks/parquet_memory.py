"""Memory of unlearning and a fast audit of rows in a folder of Parquet files."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import torch
from torch import nn

import unlearnkit as uk
from benchmarks.measure import Fact
from unlearnkit.core.arrow_rows import parquet_rows

ROWS = (10**5, 10**6)
FEATURES = 64
PART = 10**5


def run() -> Iterator[Fact]:
    """Yield the peak above that of a small run, for each number of rows, each in a process."""
    base = json.loads(child(1000))
    for rows in ROWS:
        found = json.loads(child(rows))
        for step in ("unlearn", "audit"):
            yield Fact(
                f"private memory above that of 1000 rows, {step}: {rows} rows",
                found[step] - base[step],
                "MiB",
                how=f"inputs {found['data'] / 2**20:.0f} MiB, {found['seconds']:.0f} s",
            )


def child(rows: int) -> str:
    """Return what a process of its own measured, as JSON."""
    command = [sys.executable, "-m", "benchmarks.parquet_memory", str(rows)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Watch:
    """The most private memory in MiB while it runs: pages of mapped files are not in it."""

    def __enter__(self) -> "Watch":
        self.peak, self._end = 0.0, Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.005):
            status = Path("/proc/self/status").read_text()
            held = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(held.split()[1]) / 2**10)


def write(folder: Path, rows: int) -> None:
    """Write rows of two classes, part by part."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        x = rng.normal(size=(count, FEATURES)).astype("float32")
        frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(FEATURES)])
        frame["y"] = (x[:, :2].sum(1) > 0).astype("int64")
        frame.to_parquet(folder / f"{start:09d}.parquet")


def measured(rows: int) -> dict[str, float]:
    """Return the peaks of unlearning and audit, the bytes of the inputs, and the seconds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-c", f"import benchmarks.parquet_memory as m, pathlib;"
             f"m.write(pathlib.Path({name!r}), {rows})"],
            check=True,
        )  # fmt: skip
        start = time.perf_counter()
        x = torch.randn(2000, FEATURES, generator=torch.Generator().manual_seed(1))
        case = uk.Case(
            train=parquet_rows(folder, target="y", cache=folder / "arrow"),
            test=(x[:1000], (x[:1000, :2].sum(1) > 0).long()),
            validation=(x[1000:], (x[1000:, :2].sum(1) > 0).long()),
            task=uk.Classification(2),
            fresh=lambda: nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 2)),
            recipe=uk.Recipe(lr=0.1, epochs=1, batch_size=256),
        )
        assert case.fresh is not None
        model = case.fresh()
        with Watch() as unlearning:
            method = uk.method("finetune", **{"run": {"share": 0.2}})
            done = uk.unlearn(model, case, uk.Rows(*range(500)), method)
        with Watch() as auditing:
            uk.audit(done, tier="fast", recipe_check=False)
        return {
            "unlearn": unlearning.peak,
            "audit": auditing.peak,
            "private": max(unlearning.peak, auditing.peak),
            "data": rows * FEATURES * 4,
            "seconds": time.perf_counter() - start,
        }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]))))
