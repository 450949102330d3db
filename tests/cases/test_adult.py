"""Adult: the table as one-hot columns, and requests that remove a field whole."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import adult as census
from unlearnkit.core.errors import InputError

LINES = [
    "39, State-gov, 7516, Masters, 13, Single, Sales, Child, White, Male, 10, 0, 40, Peru, <=50K",
    "50, Private, 83311, Bachelors, 9, Divorced, Sales, Husband, Black, Male, 0, 5, 13, Cuba, >50K",
    "28, Private, 338409, HS-grad, 5, Divorced, ?, Wife, Black, Female, 0, 0, 40, Cuba, >50K",
]


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for kept in (census._columns, census._sets, census.adult):
        kept.cache_clear()
    yield
    for kept in (census._columns, census._sets, census.adult):
        kept.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    monkeypatch.setattr(census, "VALIDATED", 1)
    place = tmp_path / "adult"
    place.mkdir()
    (place / "adult.data").write_text("\n".join([*LINES, ""]), "utf-8")
    tests = [f"{line}." for line in LINES[::-1]]
    (place / "adult.test").write_text("\n".join(["|1x3 Cross validator", *tests, ""]), "utf-8")
    return place


@pytest.mark.usefixtures("folder")
def test_numbers_are_standardised_and_categories_are_columns():
    case = census.adult()
    names = case.train.columns
    assert [n for n in names if n.startswith("sex")] == ["sex=Female", "sex=Male"]
    assert "occupation=?" in names
    x = case.train.x.double()
    assert x[:, names.index("sex=Male")].tolist() == [1, 1, 0]
    ages = np.array([39.0, 50, 28])
    want = torch.tensor((ages - ages.mean()) / ages.std())
    torch.testing.assert_close(x[:, names.index("age")], want, rtol=1e-5, atol=1e-6)
    assert case.train.y.tolist() == [0, 1, 1]


@pytest.mark.usefixtures("folder")
def test_test_rows_are_scaled_with_the_training_rows():
    case = census.adult()
    assert (len(case.test), len(case.validation)) == (2, 1)
    torch.testing.assert_close(case.validation.x[0], case.train.x[2])
    torch.testing.assert_close(case.test.x, case.train.x[[1, 0]])
    assert case.test.y.tolist() == [1, 0]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("field", "count"), [("sex", 2), ("race", 2)])
def test_a_field_is_removed_with_all_its_columns(field, count):
    asked = census.without(field)
    assert len(asked.request.features) == count
    after = asked.case.partition(asked.request)
    chosen = [asked.case.train.columns.index(n) for n in asked.request.features]
    assert not after.retain.data.x[:, chosen].any()
    assert not after.as_used(asked.case.test).x[:, chosen].any()
    assert len(after.forget) == 3


def test_a_line_of_another_length_is_named(folder):
    (folder / "adult.data").write_text("\n".join([LINES[0], "39, Male"]), "utf-8")
    with pytest.raises(InputError, match=r"adult.data line 2 has 2 values, 15 are needed"):
        census.adult()


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "adult").is_dir(), reason="no adult in UNLEARNKIT_DATA"
)
def test_the_real_table_has_its_stated_size_and_fits_the_network():
    case = census.adult()
    assert (len(case.train), len(case.test), len(case.validation)) == (32_561, 12_281, 4_000)
    assert case.train.x.shape[1] == len(census.columns()) == 108
    assert case.fresh()(case.train.x[:2]).shape == (2, 1)
    assert float(case.train.y.double().mean()) == pytest.approx(0.2408, abs=1e-4)
    assert uk.catalog.cases()["adult"].ask("sex").request.features == ("sex=Female", "sex=Male")
