import multiprocessing
import sqlite3
import subprocess
import sys

import pytest

from unlearnkit.core.errors import InputError
from unlearnkit.store import Measurement, Run, Store

fork = multiprocessing.get_context("fork")


def run(key="k", status="done", **rest):
    settings = {"run": {"lr": 1.0}}
    return Run(
        key, "unlearn", "digits", "class=3", "ssd", 0, status, "2030-01-01", settings, **rest
    )


def test_what_is_put_comes_back(tmp_path):
    numbers = [Measurement("auc", "unlearned", 0.5, 0.4, 0.6), Measurement("zrf", "original", None)]
    with Store(tmp_path / "ä b" / "s.sqlite") as store:
        store.save_run(run(seconds=1.5, forward=10), numbers)
        assert store.runs() == [run(seconds=1.5, forward=10)]
        assert store.measurements("k") == numbers


def test_the_same_key_twice_is_one_run_and_the_later_one(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.save_run(run(folder="a"), [Measurement("auc", "unlearned", 0.5)])
        store.save_run(run(folder="b"), [Measurement("zrf", "unlearned", 0.1)])
        assert [r.folder for r in store.runs()] == ["b"]
        assert [m.metric for m in store.measurements("k")] == ["zrf"]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_failures_are_rows_that_a_success_replaces_and_not_the_reverse(tmp_path, status):
    with Store(tmp_path / "s.sqlite") as store:
        assert store.save_run(run(status=status, error="diverged"))
        assert store.runs()[0].error == "diverged"
        assert store.save_run(run())
        assert not store.save_run(run(status=status))
        assert [r.status for r in store.runs()] == ["done"]


def test_a_run_whose_numbers_clash_leaves_nothing_behind(tmp_path):
    twice = [Measurement("auc", "unlearned", 0.5), Measurement("auc", "unlearned", 0.6)]
    with Store(tmp_path / "s.sqlite") as store:
        store.save_run(run("old"), [Measurement("auc", "unlearned", 0.1)])
        with pytest.raises(InputError, match="UNIQUE"):
            store.save_run(run("new"), twice)
        with pytest.raises(InputError, match="UNIQUE"):
            store.save_run(run("old"), twice)
        assert [r.key for r in store.runs()] == ["old"]
        assert store.measurements("old")[0].value == 0.1


def write(path, who):
    for i in range(40):
        with Store(path) as store:
            numbers = [Measurement(f"m{j}", who, float(i)) for j in range(20)]
            for key in (f"{who}{i}", "shared"):
                store.save_run(Run(key, "unlearn", "c", "r", "m", i, "done", "2030"), numbers)


def test_two_processes_write_one_store(tmp_path):
    path = str(tmp_path / "s.sqlite")
    both = [fork.Process(target=write, args=(path, who)) for who in "ab"]
    for p in both:
        p.start()
    for p in both:
        p.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    with Store(path) as store:
        assert len(store.runs()) == 81
        assert {len(store.measurements(r.key)) for r in store.runs()} == {20}


def test_the_file_is_in_write_ahead_mode_and_has_a_version(tmp_path):
    Store(tmp_path / "s.sqlite").close()
    db = sqlite3.connect(tmp_path / "s.sqlite")
    modes = [db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "user_version")]
    db.close()
    assert modes == ["wal", 4]


def test_a_store_of_a_newer_version_is_refused_untouched(tmp_path):
    Store(tmp_path / "s.sqlite").close()
    db = sqlite3.connect(tmp_path / "s.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InputError, match=r"version 99, .* knows up to 4; install a newer"):
        Store(tmp_path / "s.sqlite")


def test_a_file_that_is_no_store_is_told(tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match=r"s\.sqlite' is no database"):
        Store(tmp_path / "s.sqlite")


FULL = """
import resource, sys
from pathlib import Path
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), b"x" * 5000)
except InputError as e:
    print(e)
"""


def test_a_file_that_finds_no_room_is_told_and_leaves_the_old_one(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "w.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], check=True, capture_output=True, text=True
    )
    assert "cannot write" in done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_program_is_left_as_it_is(tmp_path):
    path = tmp_path / "s.sqlite"
    for mark, version in ((0, 0), (0, 2), (0, 99), (1234, 0)):
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA application_id = {mark}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("CREATE TABLE customers (name TEXT)")
        db.commit()
        db.close()
        before = path.read_bytes()
        with pytest.raises(InputError, match="is a database of another program"):
            Store(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_store_of_the_version_before_is_known_by_its_tables(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.save_run(run(), [Measurement("auc", "unlearned", 0.5, examples=9)])
        assert store.measurements("k")[0].examples == 9
    for version in (1, 2, 3):
        db = sqlite3.connect(path)
        db.execute("ALTER TABLE measurement DROP COLUMN examples")
        db.execute("PRAGMA application_id = 0")
        for table in ("fact", "plan")[version - 1 :]:
            db.execute(f"DROP TABLE {table}")
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        with Store(path) as store:
            assert store.runs() == [run()]
            assert store.facts("k") == {}
            assert store.measurements("k") == [Measurement("auc", "unlearned", 0.5)]


@pytest.mark.parametrize("kept", [0, 1, 16, 100, 4096, 8192, 0.5, -4096])
def test_a_store_that_was_cut_off_is_an_error_and_no_empty_study(tmp_path, kept):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        for i in range(50):
            store.save_run(
                run(f"k{i}"), [Measurement(f"m{j}", "unlearned", 0.5) for j in range(20)]
            )
    raw = path.read_bytes()
    cut = raw[: int(kept * len(raw)) if isinstance(kept, float) else kept or 0]
    path.write_bytes(cut)
    with pytest.raises(InputError, match="put back a copy of it, or choose another place"):
        Store(path)
    assert path.read_bytes() == cut


def test_a_store_that_a_killed_process_had_not_finished_is_made_anew(tmp_path):
    (tmp_path / ".s.sqlite.new").write_bytes(b"half")
    with Store(tmp_path / "s.sqlite") as store:
        assert store.runs() == []
    assert not (tmp_path / ".s.sqlite.new").exists()
