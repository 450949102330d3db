"""Speed of two processes of one thread each against one, on the same global batches."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import nn

import unlearnkit as uk
from benchmarks.measure import Fact

PAIRS = 5
GOAL = 1 / 1.6


def run() -> Iterator[Fact]:
    """Yield the best ratio of times over pairs of runs, by the wall and by processor work."""
    both = [(timed(2), timed(1)) for _ in range(PAIRS)]
    for clock, how in (
        ("wall", "the smallest of pairs: other work on the two cores counts against it"),
        ("processor", "the busier of two processes: what remains if each has a core of its own"),
    ):
        ratio = min(two[clock] / one[clock] for two, one in both)
        yield Fact(
            f"fine-tuning a convolution, two processes against one: {clock} time",
            ratio,
            goal=GOAL,
            how=f"{PAIRS} pairs; {how}",
        )


def timed(size: int) -> dict[str, float]:
    """Return the wall and processor seconds of a run on so many processes, the slowest of them."""
    command = [sys.executable, "-m", "benchmarks.ranks"]
    if size > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {clock: max(f[clock] for f in found) for clock in ("wall", "processor")}


def net() -> nn.Module:
    """Return a convolution whose steps are heavy and whose weights are few."""
    wide = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        wide += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def measured() -> dict[str, float]:
    """Return the seconds of one run in this process."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(512, 3, 32, 32, generator=g), torch.randint(0, 10, (512,), generator=g)
    case = uk.Case(
        train=(x, y), task=uk.Classification(10), fresh=net,
        recipe=uk.Recipe(lr=0.01, epochs=8, batch_size=128),
    )  # fmt: skip
    model = net()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.05)
    method = uk.method("finetune", **{"run": {"share": 1.0}})
    start, used = time.perf_counter(), time.process_time()
    done = uk.unlearn(model, case, uk.Rows(*range(16)), method)
    assert done.cost.backward
    return {"wall": time.perf_counter() - start, "processor": time.process_time() - used}


if __name__ == "__main__":
    print(json.dumps(measured()), flush=True)
