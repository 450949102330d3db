"""Small studies, with a store and a cache of their own."""

from pathlib import Path

import pytest

from tests.studies.toys import HERE
from unlearnkit.cache import Cache
from unlearnkit.store import Store
from unlearnkit.studies.spec import make_study

ROOT = Path(__file__).parents[2]


def words(**changes):
    base = {
        "name": "toy",
        "cases": [f"{HERE}:toy"],
        "requests": ["class=1"],
        "methods": ["finetune", "ssd"],
        "seeds": 2,
        "oracles": 1,
    }
    return base | changes


def small(**changes):
    return make_study(words(**changes))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite") as kept:
        yield kept


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")
