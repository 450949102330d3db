"""CIFAR-10 is read from a folder or from the hub, and what is amiss is told in a line."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import cifar10 as home
from unlearnkit.core.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
picture = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5, 9]


def encoded(pixels):
    held = io.BytesIO()
    picture.fromarray(pixels).save(held, "png")
    return held.getvalue()


def table(images, *, nested):
    raw = [encoded(i) if isinstance(i, np.ndarray) else i for i in images]
    img = [{"bytes": b, "path": None} for b in raw] if nested else raw
    return pyarrow.table({"img": img, "label": LABELS[: len(raw)]})


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for held in (home.images, home.cifar10, home.cifar10_small):
        held.cache_clear()
    yield
    for held in (home.images, home.cifar10, home.cifar10_small):
        held.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "data of ours"
    (place / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("UNLEARNKIT_DATA", str(place))
    return place / "cifar10"


def normalised(pixels):
    mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    return ((pixels / 255.0 - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("nested", [True, False], ids=["hub layout", "plain bytes"])
def test_images_are_read_in_order_and_normalised_by_channel(folder, nested):
    whole = table(PIXELS, nested=nested)
    parquet.write_table(whole.slice(0, 4), folder / "train-00000-of-00002.parquet")
    parquet.write_table(whole.slice(4), folder / "train-00001-of-00002.parquet")
    x, y = home.images("train", 5)
    torch.testing.assert_close(x.numpy(), normalised(PIXELS[:5]), rtol=1e-5, atol=1e-6)
    assert y.tolist() == LABELS[:5]


def test_the_hub_is_read_where_no_folder_is_named(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset(table(PIXELS, nested=True)).cast_column("img", datasets.Image())
    asked = []

    def load(name, split):
        asked.append((name, split))
        return rows

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    x, y = home.images("test", 3)
    torch.testing.assert_close(x.numpy(), normalised(PIXELS[:3]), rtol=1e-5, atol=1e-6)
    assert y.tolist() == LABELS[:3]
    assert asked == [("uoft-cs/cifar10", "test")]


def told(*parts):
    with pytest.raises(InputError) as error:
        home.images("train", 6)
    assert all(p in str(error.value) for p in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_neither_folder_nor_hub_says_how_to_get_either(monkeypatch):
    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    told("datasets is not installed", "pip install unlearnkit[hf]", "UNLEARNKIT_DATA")


def test_a_hub_out_of_reach_points_to_the_folder(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(name, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    told("cannot read 'uoft-cs/cifar10' from the hub: no route;", "UNLEARNKIT_DATA")


@pytest.mark.parametrize("kind", [ImportError, RuntimeError, AttributeError])
def test_any_error_of_the_libraries_behind_the_hub_is_told_with_the_remedy(monkeypatch, kind):
    def load(name, split):
        raise kind("the client of the hub\ncannot start")

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    told("cannot read 'uoft-cs/cifar10' from the hub: the client of the hub;", "UNLEARNKIT_DATA")


def test_an_empty_folder_is_named(folder):
    told("no train*.parquet in", str(folder), "unset UNLEARNKIT_DATA")


@pytest.mark.parametrize("module", ["pyarrow.parquet", "PIL.Image"])
def test_a_missing_reader_says_what_to_install(folder, monkeypatch, module):
    parquet.write_table(table(PIXELS, nested=True), folder / "train.parquet")
    monkeypatch.setitem(sys.modules, module, None)
    told(f"{module.partition('.')[0]} is not installed", "pip install unlearnkit[hf]")


def test_a_damaged_file_is_named(folder):
    (folder / "train.parquet").write_bytes(b"not parquet at all")
    told("cannot read", "train.parquet", "fetch the data set again")


def test_a_damaged_image_is_named_by_its_row(folder):
    images = [*PIXELS[:5], b"no image"]
    parquet.write_table(table(images, nested=True), folder / "train.parquet")
    told("train row 5 is no image", "fetch the data set again")


def test_an_image_of_another_size_is_refused(folder):
    images = [*PIXELS[:5], PIXELS[5][:16, :16]]
    parquet.write_table(table(images, nested=True), folder / "train.parquet")
    told("train row 5 is 16x16; 32x32 is needed")


def test_too_few_rows_are_refused(folder):
    parquet.write_table(table(PIXELS[:5], nested=True), folder / "train.parquet")
    told("train has 5 rows, 6 are needed")


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "cifar10").is_dir(), reason="no cifar10 in UNLEARNKIT_DATA"
)
def test_the_small_case_is_balanced_normalised_and_can_be_asked():
    built = uk.catalog.cases()["cifar10_small"]
    case = built.make()
    assert (len(case.train), len(case.validation), len(case.test)) == (10_000, 1000, 2000)
    assert case.train.x.shape == (10_000, 3, 32, 32)
    assert case.train.y.bincount().tolist() == [1000] * 10
    statistics = torch.std_mean(case.train.x, (0, 2, 3))
    torch.testing.assert_close(statistics[0], torch.ones(3), rtol=0.05, atol=0)
    torch.testing.assert_close(statistics[1], torch.zeros(3), rtol=0, atol=0.05)
    for name, count in {"class": 1000, "random_tenth": 1000, "mislabelled_tenth": 1000}.items():
        asked = built.ask(name)
        assert len(asked.case.partition(asked.request).forget) == count
