"""The table of houses and scikit-learn's download give one case, and a bad table is told."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch

import unlearnkit as uk
from unlearnkit.cases import california_housing as home
from unlearnkit.core.errors import InputError

RNG = np.random.default_rng(0)
COUNT = 100
TABLE = {
    "longitude": RNG.uniform(-124, -114, COUNT),
    "latitude": RNG.uniform(32, 42, COUNT),
    "housing_median_age": RNG.integers(1, 52, COUNT),
    "total_rooms": RNG.integers(500, 9000, COUNT),
    "total_bedrooms": [""] * COUNT,
    "population": RNG.integers(300, 4000, COUNT),
    "households": RNG.integers(100, 900, COUNT),
    "median_income": RNG.uniform(0.5, 15, COUNT),
    "median_house_value": RNG.integers(15_000, 500_001, COUNT),
    "ocean_proximity": ["NEAR BAY"] * COUNT,
}


@pytest.fixture(autouse=True)
def _nothing_remembered():
    home._sets.cache_clear()
    home.california_housing.cache_clear()
    yield
    home._sets.cache_clear()
    home.california_housing.cache_clear()


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    (tmp_path / "california_housing").mkdir()

    def written(table):
        with (tmp_path / "california_housing" / "housing.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(table)
            out.writerows(zip(*table.values(), strict=True))

    return written


def by_hand():
    """Return the features and values of the table as scikit-learn computes them."""
    homes = TABLE["households"]
    x = np.stack(
        [
            TABLE["median_income"],
            TABLE["housing_median_age"],
            TABLE["total_rooms"] / homes,
            np.zeros(COUNT),
            TABLE["population"],
            TABLE["population"] / homes,
            TABLE["latitude"],
            TABLE["longitude"],
        ],
        1,
    )
    return x, TABLE["median_house_value"] / 1e5


def test_rows_are_split_and_standardised_and_values_are_in_100_000_dollars(write):
    write(TABLE)
    case, (x, y) = home.california_housing(), by_hand()
    assert (len(case.train), len(case.test), len(case.validation)) == (70, 20, 10)
    x = np.delete(x, 3, 1)
    every = {round(float(v), 5): i for i, v in enumerate(y)}
    rows = [every[round(float(v), 5)] for v in case.train.y[:, 0]]
    base = x[rows]
    want = (base - base.mean(0)) / base.std(0)
    np.testing.assert_allclose(case.train.x.numpy(), want, rtol=1e-4, atol=1e-5)
    assert case.train.group.tolist() == [int(v) for v in TABLE["latitude"][rows]]
    never = [every[round(float(v), 5)] for v in case.test.y[:, 0]]
    assert case.test.group.tolist() == [int(v) for v in TABLE["latitude"][never]]


def test_the_download_gives_the_same_case_as_the_table(write, monkeypatch):
    write(TABLE)
    ours = home.california_housing()
    home._sets.cache_clear()
    home.california_housing.cache_clear()
    x, y = by_hand()
    monkeypatch.delenv("UNLEARNKIT_DATA")
    fetched = sklearn.utils.Bunch(data=x, target=y)
    monkeypatch.setattr(sklearn.datasets, "fetch_california_housing", lambda: fetched)
    theirs = home.california_housing()
    torch.testing.assert_close(theirs.train.x, ours.train.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.test.y, ours.test.y)
    assert torch.equal(theirs.train.group, ours.train.group)


def test_a_download_out_of_reach_points_to_the_folder(monkeypatch):
    def fetch():
        raise OSError("no route\nto host")

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_california_housing", fetch)
    with pytest.raises(InputError, match=r"no route; set UNLEARNKIT_DATA .*housing\.csv$"):
        home.california_housing()


def test_a_missing_table_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"no file .*housing\.csv.*unset UNLEARNKIT_DATA"):
        home.california_housing()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"latitude": None}, "has no column latitude"),
        ({"population": ["many"] * COUNT}, "cannot read .*many"),
        ({"households": [0] * COUNT}, "not finite"),
    ],
    ids=["no column", "a word", "no households"],
)
def test_a_damaged_table_is_told(write, change, what):
    write({k: change.get(k, v) for k, v in TABLE.items() if change.get(k, v) is not None})
    with pytest.raises(InputError, match=what):
        home.california_housing()


def test_a_short_table_is_told(write):
    write({k: v[:9] for k, v in TABLE.items()})
    with pytest.raises(InputError, match="has 9 rows; fetch the table again"):
        home.california_housing()


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "california_housing").is_dir(),
    reason="no california_housing in UNLEARNKIT_DATA",
)
def test_the_real_case_can_be_asked():
    built = uk.catalog.cases()["california_housing"]
    case = built.make()
    assert (len(case.train), len(case.test), len(case.validation)) == (14_448, 4128, 2064)
    for name, count in {"range": 1276, "group": 3119, "random_tenth": 1444}.items():
        asked = built.ask(name)
        assert len(asked.case.partition(asked.request).forget) == count
