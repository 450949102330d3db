"""A ledger's worker whose audits have their models trained on a Ray cluster."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from torch import nn

from tests.ledger.conftest import small_case
from unlearnkit.cache import Cache
from unlearnkit.ledger import deletion_run

pytest.importorskip("cryptography")
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install unlearnkit[ray]"
)


class Signs(nn.Module):
    """A network that leaves the number of each process that it runs in."""

    def __init__(self, place):
        super().__init__()
        self.place = str(place)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        (Path(self.place) / str(os.getpid())).touch()
        return self.net(x)


def test_the_address_goes_to_both_calls_that_train_models(make, monkeypatch):
    asked = []

    def heard(whole):
        def call(*given, ray, **more):
            asked.append(ray)
            return whole(*given, **more)

        return call

    for name in ("oracle", "audit"):
        monkeypatch.setattr(deletion_run, name, heard(getattr(deletion_run, name)))
    ledger = make(tier="reference", oracles=3)
    ledger.request("rows=a0003", id="one")
    assert ledger.run(ray="local").state == "done"
    assert asked == ["local", "local"]


@needs_ray
@pytest.mark.exhaustive
def test_the_models_of_its_audits_are_trained_there_with_the_same_result(make, cluster, tmp_path):
    answered = []
    for ray in (None, "local"):
        place = tmp_path / f"ran-{ray}"
        place.mkdir()
        case = small_case().replace(fresh=lambda place=place: Signs(place))
        ledger = make(f"ledger-{ray}", case, tier="reference", oracles=3)
        ledger.cache = Cache(tmp_path / f"cache-{ray}")
        ledger.request("rows=a0003", id="one")
        assert ledger.run(ray=ray).state == "done"
        (attempt,) = ledger.entries("attempt")
        answered.append((attempt.body["model"], attempt.body["verdict"]))
        elsewhere = {p.name for p in place.iterdir()} - {str(os.getpid())}
        assert bool(elsewhere) is (ray is not None)
    assert answered[0] == answered[1]
