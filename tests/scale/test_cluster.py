"""Trainings on a Ray cluster whose workers and machines are lost."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.test_ensemble import members, together, toy
from unlearnkit.train.ensemble import fit_together

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install unlearnkit[ray]"
)


class Falls(nn.Module):
    """A network that kills the process it runs in, the first time that it runs elsewhere."""

    def __init__(self, mark):
        super().__init__()
        self.mark, self.home = str(mark), os.getpid()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.AlphaDropout(0.2), nn.Linear(8, 3))

    def forward(self, x):
        if os.getpid() != self.home and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)


@needs_ray
@pytest.mark.slow
def test_a_training_whose_worker_is_killed_is_done_again_with_the_same_bits(cluster, tmp_path):
    case = toy(lambda: Falls(tmp_path / "fell"))
    here, there = (members(case, range(3), torch.float32) for _ in range(2))
    together(here, case)
    assert len(list(fit_together(there, case.task, case.recipe, ray="local"))) == 3
    assert (tmp_path / "fell").exists()
    for a, b in zip(here, there, strict=True):
        for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
            assert torch.equal(p, q)


TWO_NODES = """
import sys, threading
import torch
torch.set_num_threads(1)
from pathlib import Path
from ray.cluster_utils import Cluster
from unlearnkit.cache import Cache
from unlearnkit.core.request import Rows
from unlearnkit.oracles import oracle
from unlearnkit.testing.toy_cases import toy_case
from unlearnkit.tasks.classification import Classification

if __name__ == "__main__":
    place = Path(sys.argv[1])
    case = toy_case(Classification(3))
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60}))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    threading.Timer(float(sys.argv[2]), lambda: cluster.remove_node(other)).start()
    there = oracle(case, Rows(0), seeds=24, cache=Cache(place / "ray"), ray=cluster.address)
    here = oracle(case, Rows(0), seeds=24, cache=Cache(place / "here"))
    for a, b in zip(there.models, here.models, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    print("equal", len(here.models))
    cluster.shutdown()
"""


@needs_ray
@pytest.mark.exhaustive
def test_oracles_of_two_machines_one_of_which_is_lost_are_those_of_this_process(tmp_path):
    script = tmp_path / "two_nodes.py"
    script.write_text(TWO_NODES)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "2"], capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert "equal 24" in done.stdout, done.stderr[-2000:]
