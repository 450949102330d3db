"""Audits of many classes, many models and many rows need little memory above their data."""

import os
import subprocess
import sys

import pytest

# glibc keeps freed memory, how much of it depends on its threads: one thread and one arena
# that give blocks back at once leave the peak of what is held, on every machine.
FREED_AT_ONCE = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}

HEAD = """
import torch, unlearnkit
from torch import nn
from unlearnkit.core.case import Case
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

def peak():
    lines = open('/proc/self/status').read().splitlines()
    return int(next(t for t in lines if t.startswith('VmHWM')).split()[1]) / 1024

def measure(do):
    do(20)
    before = peak()
    do(1)
    print(peak() - before)
"""

INFLUENCE = """
from unlearnkit.difficulty.self_influence import self_influence
log_p = torch.randn(40, 50_000).log_softmax(1)
y = torch.randint(0, 50_000, (40,))
phi = torch.randn(40, 3)
measure(lambda k: self_influence(phi, log_p[:, : 50_000 // k], y // k))
"""

MARGINS = """
task, n = Classification(50_000), 200
out, y = torch.randn(n, 50_000), torch.randint(0, 50_000, (n,))
def do(k):
    view = {Split.FORGET: y[: n // k]}
    e = Evidence.from_outputs({"unlearned": {Split.FORGET: out[: n // k]}}, view, task, Runtime())
    e.margins(ModelRole.UNLEARNED, Split.FORGET)
measure(do)
"""

PARTS = """
from unlearnkit.core.inference import run_in_parts
net = nn.Linear(2, 50_000)
x = torch.randn(2_000, 2)
def do(k):
    view = View.all(TensorData(x[: len(x) // k], torch.zeros(len(x) // k, dtype=torch.long)))
    for _ in run_in_parts(net, view, Classification(50_000), Runtime()):
        pass
measure(do)
"""

WAYS = """
from unlearnkit.auditing.strong.scores import towards_targets
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
members = tuple(ModelId(w, i) for w in ("oracle", "unlearned") for i in range(32))
def do(k):
    e = 8_000 // k
    shape = (len(members), e)
    residuals = torch.ones(1, 1, 1, dtype=torch.float64).expand(*shape, 12)
    flat = torch.zeros(1, 1).expand(shape)
    s = MarginMatrix(flat.double(), flat, flat, members, {"forget": torch.arange(e)}, residuals)
    towards_targets(s)
measure(do)
"""

THIRDS = """
from unlearnkit.auditing.strong.bootstrap_intervals import auc_over_models
halves = [tuple(torch.randn(32, 6_000, dtype=torch.float64) for _ in range(2)) for _ in range(2)]
measure(lambda k: auc_over_models([tuple(t[:, : 6_000 // k] for t in h) for h in halves]))
"""

TABLE = """
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.auditing.strong.results_table import strong_table
kinds, models = ("original", "unlearned", "oracle", "floor"), 20
members = tuple(ModelId(w, i) for w in kinds for i in range(models))
sections = ("forget", "retain", "held_out", "population", "test")
margins = torch.randn(len(members), len(sections) * 8_000, dtype=torch.float64)
codes, errors = torch.zeros(margins.shape, dtype=torch.uint8), (margins < 0).float()
def do(k):
    e = 8_000 // k
    parts = (t[:, : len(sections) * e] for t in (margins, codes, errors))
    strong_table(MarginMatrix(*parts, members, {s: torch.arange(e) for s in sections}), Runtime())
measure(do)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("body", "most"),
    [
        pytest.param(INFLUENCE, 60, id="self-influence of 50,000 classes"),
        pytest.param(MARGINS, 120, id="margins of 50,000 classes"),
        pytest.param(PARTS, 300, id="outputs of 2,000 rows and 50,000 classes, in parts"),
        pytest.param(WAYS, 25, id="64 models, 8,000 rows of 12 numbers"),
        pytest.param(THIRDS, 30, id="AUC over 64 models of 6,000 rows"),
        pytest.param(
            TABLE,
            75,
            id="strong table of 20 models, 8,000 rows a section",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_the_peak_grows_by_no_more_than(body, most):
    child = subprocess.run(
        [sys.executable, "-c", HEAD + body],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **FREED_AT_ONCE},
    )
    assert 0 < float(child.stdout) < most  # MiB
