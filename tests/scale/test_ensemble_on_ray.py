"""An ensemble trained on a Ray cluster is the one that is trained here."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from tests.train.test_ensemble import members, together, toy
from unlearnkit.cache import Cache
from unlearnkit.core.errors import DivergedError
from unlearnkit.core.request import Rows
from unlearnkit.oracles import oracle
from unlearnkit.train.ensemble import fit_together

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install unlearnkit[ray]"
)


def drawing():
    """Return a network that cannot be stacked: a layer of it draws by itself."""
    return nn.Sequential(nn.Linear(6, 8), nn.AlphaDropout(0.2), nn.Linear(8, 3))


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(("make", "parts"), [(None, [6]), (drawing, [1] * 6)], ids=["mlp", "alone"])
def test_chunks_trained_on_ray_have_the_bits_of_those_trained_here(cluster, make, parts):
    case = toy(make)
    here, there = (members(case, range(6), torch.float32) for _ in range(2))
    together(here, case)
    ended = list(fit_together(there, case.task, case.recipe, ray="local"))
    assert sorted(len(part) for part in ended) == parts
    for a, b in zip(here, there, strict=True):
        assert a.rt.cost == b.rt.cost
        for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
            assert torch.equal(p, q)


@needs_ray
@pytest.mark.slow
def test_oracles_from_ray_are_kept_and_not_trained_again(cluster, tmp_path):
    cache = Cache(tmp_path / "ray")
    two = oracle(toy(), Rows(0), seeds=2, cache=cache, ray="local")
    assert [r.cached for r in two.runs] == [False, False]
    again = oracle(toy(), Rows(0), seeds=2, cache=cache, ray="local")
    assert [r.cached for r in again.runs] == [True, True]
    three = oracle(toy(), Rows(0), seeds=3, cache=cache, ray="local")
    assert [r.cached for r in three.runs] == [True, True, False]
    here = oracle(toy(), Rows(0), seeds=3, cache=Cache(tmp_path / "here"))
    for a, b in zip(three.models, here.models, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@needs_ray
@pytest.mark.slow
def test_an_error_of_a_task_is_the_error_of_the_call(cluster, tmp_path):
    with pytest.raises(DivergedError, match="use a smaller learning rate"):
        oracle(toy(lr=1e12), Rows(0), seeds=2, cache=Cache(tmp_path), ray="local")
