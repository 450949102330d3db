"""A ledger on a toy case that is trained, unlearned and audited in a blink."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

import unlearnkit as uk
from unlearnkit.cache import Cache
from unlearnkit.testing import toy_case

POLICY = {
    "signer": {"name": "data protection officer"},
    "tier": "fast",
    "methods": ["finetune"],
    "retrain_at_end": False,
    "accept": ["INCONCLUSIVE", "LEAKS", "DAMAGED", "OVER-FORGOT", "DISTINGUISHABLE"],
    "notify": "dpo",
    "page": False,
}


def small_case(rows=60):
    toy = toy_case(uk.Classification(3))
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(rows) % 3
    x = toy.train.x[:3][y] + torch.randn(rows, 6, generator=rng)
    return uk.Case(
        train=(x, y),
        test=(toy.test.x, toy.test.y),
        task=toy.task,
        keys=[f"a{i:04}" for i in range(rows)],
        group=[f"owner-{i // 4}" for i in range(rows)],
        fresh=toy.fresh,
        recipe=uk.Recipe(epochs=2, lr=0.05, batch_size=16),
    )


def write_policy(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump({**POLICY, **changes}))


@dataclass
class Made:
    """A ledger, and the calls that tests make on it."""

    folder: Path
    case: uk.Case
    cache: Cache

    def open(self, clock=None):
        from unlearnkit.ledger.register import Register, now

        return Register(self.folder, clock or now)

    def request(self, forget, **more):
        from unlearnkit.ledger.deletion_request import receive
        from unlearnkit.ledger.policy import read_policy

        with self.open() as register:
            return receive(self.folder, register, read_policy(self.folder), forget, **more)

    def run(self, **more):
        from unlearnkit.ledger.deletion_run import run_batch

        return run_batch(self.folder, self.case, cache=self.cache, **more)

    def check(self, head=None):
        from unlearnkit.ledger.ledger_check import check

        return check(self.folder, head)

    def states(self):
        with self.open() as register:
            return {r.id: r.state for r in register.requests()}

    def entries(self, kind=None):
        with self.open() as register:
            return register.entries(kind)


@pytest.fixture
def make(tmp_path):
    """Make a ledger, its policy changed as the arguments say."""

    def build(name="ledger", case=None, model=None, **changes):
        from unlearnkit.ledger.new_ledger import create_ledger

        folder, case = tmp_path / name, case or small_case()
        write_policy(folder, **changes)
        cache = Cache(tmp_path / "cache")
        create_ledger(folder, "small", case, model=model, cache=cache).close()
        return Made(folder, case, cache)

    return build


@pytest.fixture
def ledger(make):
    return make()
