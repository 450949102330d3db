"""Files of a case come from the named folder or from the net, and what is amiss is told."""

import sys

import pytest

from unlearnkit.cases.data_folder import lines
from unlearnkit.core.errors import InputError

URL = "https://example.org/tales.txt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tales").mkdir()
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    return tmp_path / "tales"


def told(*parts):
    with pytest.raises(InputError) as error:
        lines("tales", "tales.txt", URL)
    assert all(p in str(error.value) for p in parts), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_lines_of_a_file_come_in_order_without_their_ends(folder, end):
    (folder / "tales.txt").write_bytes(f"one\ttwo{end}{end}thr\u2028ee \u00e9{end}".encode())
    assert lines("tales", "tales.txt", URL) == ["one\ttwo", "thr\u2028ee \u00e9"]


def test_a_missing_file_is_named_with_where_to_get_it(folder):
    told("tales: no tales.txt in", str(folder), URL, "unset UNLEARNKIT_DATA")


def test_a_file_without_lines_is_refused(folder):
    (folder / "tales.txt").write_text("\n\n", "utf-8")
    told("tales.txt has no lines", URL)


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "tales.txt").write_bytes(b"\xff\xfe\xff")
    told("cannot read tales.txt", "tales/tales.txt")


def test_the_net_is_asked_where_no_folder_is_named(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(kind, *, data_files, split):
        asked.append((kind, data_files, split))
        return {"text": ["one", "", "two"]}

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert lines("tales", "tales.txt", URL) == ["one", "two"]
    assert asked == [("text", URL, "train")]


def test_a_net_out_of_reach_points_to_the_folder(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(kind, *, data_files, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    told("no route;", URL, "UNLEARNKIT_DATA", "tales/tales.txt")


def test_neither_folder_nor_library_says_how_to_get_either(monkeypatch):
    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    told("tales: datasets is not installed", "pip install unlearnkit[hf]", "UNLEARNKIT_DATA")
