"""Rows in a folder of Parquet files, against the same rows in memory."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.arrow_rows import parquet_rows
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime

ROWS = 240


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    made = pd.DataFrame(x, columns=list("abcd"))
    made["y"] = (x[:, 0] + x[:, 1] > 0).astype("int64")
    made["owner"] = np.arange(ROWS) // 10
    made["pixels"] = list(rng.normal(size=(ROWS, 3)).astype("float32"))
    return made


@pytest.fixture(scope="module")
def folder(frame, tmp_path_factory):
    place = tmp_path_factory.mktemp("rows")
    for i, start in enumerate(range(0, ROWS, 100)):  # parts of 100, 100 and 40 rows
        frame[start : start + 100].to_parquet(place / f"{i}.parquet", row_group_size=32)
    return place


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory):
    return parquet_rows(
        folder, target="y", inputs=list("abcd"), group="owner", cache=tmp_path_factory.mktemp("c")
    )


def case(train):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    return uk.Case(
        train=train,
        test=(x, (x.sum(1) > 0).long()),
        validation=(x, (x.sum(1) > 0).long()),
        task=uk.Classification(2),
        fresh=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        recipe=uk.Recipe(lr=0.1, epochs=2, batch_size=16),
    )


def test_batches_hold_the_rows_of_the_files_in_order(rows, frame):
    batches = list(View.all(rows).batches(50, Runtime()))
    x = torch.cat([b.x for b in batches])
    assert torch.equal(x, torch.tensor(frame[list("abcd")].to_numpy()))
    assert torch.equal(torch.cat([b.y for b in batches]), torch.tensor(frame["y"].to_numpy()))
    assert rows.group.tolist() == frame["owner"].tolist()


def test_picked_rows_are_those_of_their_positions(rows, frame):
    at = torch.tensor([239, 5, 100, 99])
    some = rows.pick(at).pick(torch.tensor([3, 0]))
    x = next(View.all(some).batches(2, Runtime())).x
    assert torch.equal(x, torch.tensor(frame[list("abcd")].to_numpy()[[99, 239]]))
    assert torch.equal(some.as_given().take()[1][0], x[1])


def test_inputs_are_views_of_the_file_and_not_in_memory(rows):
    parts = [p for column in rows.source.columns.values() for p in column]
    assert not any(part.flags.owndata or part.flags.writeable for part in parts)


def test_columns_of_lists_keep_their_shape(folder, frame, tmp_path):
    both = parquet_rows(folder, target="y", inputs=("pixels", "a"), cache=tmp_path)
    x = next(View.all(both).batches(ROWS, Runtime())).x
    assert torch.equal(x["pixels"], torch.tensor(np.stack(frame["pixels"])))
    assert torch.equal(x["a"], torch.tensor(frame["a"].to_numpy()))


def test_unlearning_and_audit_equal_those_of_rows_in_memory(rows, frame):
    memory = (torch.tensor(frame[list("abcd")].to_numpy()), torch.tensor(frame["y"].values))
    found = []
    for train in (replace(rows, group=None), memory):
        here = case(train)
        done = uk.unlearn(uk.train_original(here).model, here, uk.Rows(*range(20)), "finetune")
        report = uk.audit(done, tier="fast", recipe_check=False)
        found.append((done.model.state_dict(), report.rows))
    assert all(torch.equal(t, found[1][0][n]) for n, t in found[0][0].items())
    assert found[0][1] == found[1][1]


def test_equal_rows_have_equal_addresses_and_others_not(folder, rows, tmp_path):
    again = parquet_rows(folder, target="y", inputs=list("abcd"), cache=tmp_path)
    assert again.key() == rows.key()
    less = parquet_rows(folder, target="y", inputs=list("abc"), cache=tmp_path)
    assert len({rows.key(), less.key(), rows.pick(torch.arange(ROWS - 1)).key()}) == 3


def test_files_of_different_schemas_are_refused_by_name(frame, tmp_path):
    frame[["a", "y"]].to_parquet(tmp_path / "0.parquet")
    frame[["a", "y"]].astype({"a": "int32"}).to_parquet(tmp_path / "1.parquet")
    told = r"column 'a' is float in '0.parquet' and int32 in '1.parquet'"
    with pytest.raises(uk.UnlearnkitError, match=told):
        parquet_rows(tmp_path, target="y")


def test_a_folder_without_files_or_columns_is_refused(folder, tmp_path):
    with pytest.raises(uk.UnlearnkitError, match=r"no \.parquet files"):
        parquet_rows(tmp_path, target="y")
    with pytest.raises(uk.UnlearnkitError, match="no column 'z'"):
        parquet_rows(folder, target="z", cache=tmp_path)


def test_gaps_text_and_damaged_files_are_refused(tmp_path):
    for name, values, told in (
        ("gap", [1.0, None, 2.0], "has gaps"),
        ("text", ["a", "b", "c"], "is not numeric"),
        ("uneven", [[1.0], [1.0, 2.0], []], "different lengths"),
    ):
        place = tmp_path / name
        place.mkdir()
        pd.DataFrame({"x": values, "y": [0, 1, 0]}).to_parquet(place / "0.parquet")
        with pytest.raises(uk.UnlearnkitError, match=told):
            parquet_rows(place, target="y", cache=tmp_path / "cache")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(uk.UnlearnkitError, match="cannot read"):
        parquet_rows(tmp_path, target="y")


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_inputs():
    from benchmarks.parquet_memory import child

    small, large = (json.loads(child(rows)) for rows in (10_000, 100_000))
    data = (large["data"] - small["data"]) / 2**20
    assert data > 20  # MiB of inputs, of which next to nothing may be held
    assert large["private"] - small["private"] < 0.5 * data
