"""Photographs are turned by the angle that their target says, and corners tell nothing."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import pi

import unlearnkit as uk
from unlearnkit.cases import cifar10 as source
from unlearnkit.cases import cifar10_rotation as home
from unlearnkit.core.errors import InputError

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIDE = (torch.arange(32) - 15.5) / 16
DISC = SIDE.square() + SIDE.square()[:, None] <= 1


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for held in (source.images, home._sets, home.cifar10_rotation):
        held.cache_clear()
    yield
    for held in (source.images, home._sets, home.cifar10_rotation):
        held.cache_clear()


@pytest.mark.parametrize("quarter", range(4))
def test_right_angles_turn_the_pixels_counter_clockwise(quarter):
    angle = torch.full((4,), quarter * pi / 2, dtype=torch.float64)
    want = torch.rot90(X, quarter, (2, 3)) * DISC
    torch.testing.assert_close(home.rotate(X, angle), want, rtol=0, atol=1e-6)


def test_corners_are_of_the_mean_colour_at_every_angle():
    angle = torch.tensor([0.0, 0.3, 0.8, 2.5], dtype=torch.float64)
    out = home.rotate(X, angle)
    assert bool((out[:, :, ~DISC] == 0).all())
    assert float(DISC.float().mean()) == pytest.approx(pi / 4, abs=0.01)


def test_turning_there_and_back_gives_a_smooth_image_back():
    row = torch.linspace(-1, 1, 32, dtype=torch.float64)
    smooth = (row[:, None] + 0.5 * row).expand(1, 3, 32, 32)
    angle = torch.tensor([0.7], dtype=torch.float64)
    back = home.rotate(home.rotate(smooth, angle), -angle)
    inner = SIDE.square() + SIDE.square()[:, None] < 0.8
    torch.testing.assert_close(back[..., inner], smooth[..., inner], rtol=0, atol=1e-6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    picture = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    raw = []
    for image in pixels:
        held = io.BytesIO()
        picture.fromarray(image).save(held, "png")
        raw.append(held.getvalue())
    (tmp_path / "cifar10").mkdir()
    for part, rows in (("train", raw), ("test", raw[:6])):
        table = pyarrow.table({"img": rows, "label": [0] * len(rows)})
        parquet.write_table(table, tmp_path / "cifar10" / f"{part}.parquet")
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    for name, count in {"TRAIN": 16, "VALIDATION": 4, "TEST": 6}.items():
        monkeypatch.setattr(home, name, count)
    return tmp_path


def test_rows_are_turned_by_angles_of_a_seed_and_grouped_by_quadrant(folder):
    case = home.cifar10_rotation()
    assert [len(d) for d in (case.train, case.test, case.validation)] == [16, 6, 4]
    angle = torch.atan2(case.train.y[:, 1], case.train.y[:, 0]).remainder(2 * pi)
    assert case.train.group.tolist() == (angle // (pi / 2)).long().tolist()
    assert len(set(case.train.group.tolist())) == 4
    upright = source.images("train", 20)[0][:16]
    want = home.rotate(upright.double(), angle.double())
    torch.testing.assert_close(case.train.x.double(), want, rtol=0, atol=1e-3)
    home._sets.cache_clear()
    home.cifar10_rotation.cache_clear()
    assert home.cifar10_rotation().train.key() == case.train.key()


NAMED = {
    "range": lambda y: bool((y[:, 0] > 0.7071).all()),
    "group": lambda y: bool(((y[:, 0] <= 0) & (y[:, 1] >= 0)).all()),
    "random_tenth": lambda y: len(y) == 1,  # of 16 rows, rounded down
}


def test_every_request_has_its_rows_checked():
    assert set(uk.catalog.cases()["cifar10_rotation"].requests) == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_each_request_names_the_rows_that_it_says(folder, name):
    asked = uk.catalog.cases()["cifar10_rotation"].requests[name]()
    y = asked.case.partition(asked.request).forget.y
    assert len(y)
    assert NAMED[name](y)


def test_too_few_photographs_are_told(folder, monkeypatch):
    monkeypatch.setattr(home, "TRAIN", 17)
    with pytest.raises(InputError, match="train has 20 rows, 21 are needed"):
        home.cifar10_rotation()


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(not REAL or not (Path(REAL) / "cifar10").is_dir(), reason="no cifar10 here")
def test_real_quadrants_hold_a_quarter_each():
    case = home.cifar10_rotation()
    assert case.train.group.bincount().tolist() == [1018, 1022, 986, 974]
    assert case.fresh().eval()(case.test.x[:2]).shape == (2, 2)
