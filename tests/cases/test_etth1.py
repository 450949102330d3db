"""Forecasts of the load are cut from the hours without a leak between sets or months."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import etth1 as home
from unlearnkit.core.errors import InputError

HOURS = 17_420
START = datetime(2016, 7, 1)
VALUES = np.round(np.random.default_rng(0).normal(5, 2, (HOURS, 7)), 6)


def row(i):
    return ",".join([str(START + timedelta(hours=i)), *map(str, VALUES[i])])


TEXT = "\n".join(["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *map(row, range(HOURS))])


@pytest.fixture(autouse=True)
def _nothing_remembered():
    yield
    for held in (home.etth1, home._sets, home._hours):
        held.cache_clear()


@pytest.fixture
def write(tmp_path, monkeypatch):
    for held in (home.etth1, home._sets, home._hours):
        held.cache_clear()
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    (tmp_path / "ett").mkdir()
    return lambda text: (tmp_path / "ett" / "ETTh1.csv").write_text(text, "utf-8")


def test_forecasts_are_cut_from_the_hours_without_a_leak(write):
    write(TEXT)
    case = home.etth1()
    use = [(0, 0, 0, 1, 2)[i // 168 % 5] for i in range(HOURS)]
    train = np.array(use) == 0
    scaled = (VALUES - VALUES[train].mean(0)) / VALUES[train].std(0)
    held = []
    for part, data in enumerate((case.train, case.test, case.validation)):
        hours = set()
        for k in range(0, len(data), 7):
            past, ahead = data.x["past"][k].double().numpy(), data.y[k].double().numpy()
            first = int(np.abs(scaled - past[0, :7]).sum(1).argmin())
            np.testing.assert_allclose(past[:, :7], scaled[first : first + 48], atol=1e-4)
            np.testing.assert_allclose(ahead, scaled[first + 48 : first + 72, 0], atol=1e-4)
            span = range(first, first + 72)
            assert {use[i] for i in span} == {part}
            months = {(START + timedelta(hours=i)).month for i in span}
            assert months == {int(data.group[k])}
            clock = [START + timedelta(hours=i) for i in span[48:]]
            turn = [2 * np.pi * np.array([d.hour / 24, d.weekday() / 7]) for d in clock]
            want = [[*np.sin(t), *np.cos(t)] for t in turn]
            np.testing.assert_allclose(data.x["future"][k].numpy(), want, atol=1e-5)
            hours |= set(span)
        held.append(hours)
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    out = case.fresh()(case.train.x["past"][:3], case.train.x["future"][:3])
    assert out.shape == (3, 24, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TEXT.replace("date,HUFL", "day,HUFL"), "starts with 'day,HUFL"),
        ("\n".join(TEXT.split("\n")[:-1]), "must have 17420 hours, got 17419"),
        (TEXT.replace("\n2016-07-01 01", "\nnoon", 1), "line 3 is no hour"),
        (TEXT.replace(row(0), row(0) + ",1"), "line 2 is no hour"),
        (TEXT.replace(row(1), "2016-07-01 01:00:00,x,1,1,1,1,1,1"), "line 3 is no hour"),
        (TEXT.replace(row(1), "2016-07-01 01:00:00,nan,1,1,1,1,1,1"), "line 3 is no hour"),
    ],
    ids=["another table", "too short", "no date", "a column more", "no number", "not finite"],
)
def test_a_damaged_file_is_told(write, text, what):
    write(text)
    with pytest.raises(InputError, match=what):
        home.etth1()


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(not REAL or not (Path(REAL) / "ett").is_dir(), reason="no ett here")
def test_the_real_case_can_be_asked():
    built = uk.catalog.cases()["etth1"]
    case = built.make()
    assert [len(d) for d in (case.train, case.test, case.validation)] == [1407, 318, 309]
    assert case.task.width == 24
    for name, count in {"range": 170, "group": 328, "random_tenth": 140}.items():
        asked = built.ask(name)
        assert len(asked.case.partition(asked.request).forget) == count
    assert torch.equal(case.test.group.unique(), torch.arange(1, 13))
