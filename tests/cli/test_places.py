"""Where a run goes: looked at before the work starts, whole at its end, swept after a crash."""

import os
import socket
import sqlite3
import subprocess
import sys

import pytest

from unlearnkit.cli.run_folder import new_folder
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_together
from unlearnkit.report.report import Report
from unlearnkit.store import Store

COUNTED = """
import torch
from pathlib import Path
from torch import nn
from unlearnkit import Case, Recipe
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(6, 3)
    def forward(self, x):
        (Path(__file__).parent / "worked").touch()
        if (Path(__file__).parent / "interrupt").exists():
            raise KeyboardInterrupt
        return self.line(x)
def make():
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 6, generator=rng), torch.arange(60) % 3
    return Case(train=rows, test=rows, task="classification", fresh=Net,
                recipe=Recipe(lr=0.1, epochs=1, batch_size=16))
"""


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A case that leaves the file ``worked`` as soon as its model is run."""
    (tmp_path / "counted_case.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "counted_case", raising=False)
    return "counted_case:make"


def unlearn(run, case, *words):
    return run("unlearn", case, "--forget", "class=1", *words)


def dangling(path):
    path.symlink_to(path.parent / "nowhere" / "at all")


def foreign(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    db.close()


PLACES = {
    "link": ("x", lambda here: dangling(here / "x"), "is a link"),
    "link on the way": ("y/x", lambda here: dangling(here / "y"), "is a link that leads nowhere"),
    "file on the way": ("y/x", lambda here: (here / "y").write_text(""), "is no folder"),
    "store is a link": ("x", lambda here: dangling(here / "unlearnkit.sqlite"), "leads nowhere"),
    "store is a folder": ("x", lambda here: (here / "unlearnkit.sqlite").mkdir(), "is a folder"),
    "store is foreign": ("x", lambda here: foreign(here / "unlearnkit.sqlite"), "another program"),
    "store is empty": ("x", lambda here: (here / "unlearnkit.sqlite").touch(), "is empty"),
}


@pytest.mark.parametrize(("out", "spoil", "told"), PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    run, counted, tmp_path, out, spoil, told
):
    spoil(tmp_path)
    said = unlearn(run, counted, "--out", out)
    assert said.code == 1
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "worked").exists()


READ_ONLY = """
import os, sys
from pathlib import Path
from unlearnkit.core.errors import InputError
from unlearnkit.store import Store
if os.getuid() == 0:
    os.setuid(65534)
try:
    Store.check(Path(sys.argv[1]))
except InputError as e:
    print(e)
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
@pytest.mark.parametrize("there", [True, False])
def test_a_store_that_is_read_only_is_found_before_the_work(tmp_path_factory, there):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "s.sqlite"
        if there:
            Store(place).close()
        Path(name).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(place)],
            check=False,
            capture_output=True,
            text=True,
        )
        Path(name).chmod(0o755)
    assert done.stdout.startswith("store: "), done.stderr
    assert "s.sqlite" in done.stdout
    assert done.stdout.count("\n") == 1


def test_an_interrupt_while_the_original_trains_leaves_a_row(run, counted, tmp_path):
    (tmp_path / "interrupt").touch()
    assert unlearn(run, counted, "--out", "runs/x").code == 130
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        (row,) = store.runs()
    assert (row.status, row.method) == ("cancelled", "finetune")
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.name.endswith(".part")] == []


def test_an_interrupted_run_of_a_study_leaves_a_row_and_is_carried_out_the_next_time(
    run, counted, tmp_path
):
    (tmp_path / "s.yaml").write_text(
        f"name: s\ncases: [{counted}]\nrequests: [class=1]\nmethods: [finetune]\n"
        "seeds: 1\ntier: fast\n"
    )
    assert run("study", "plan", "s.yaml").code == 0
    (tmp_path / "interrupt").touch()
    assert run("study", "run", "s.yaml", "-q").code == 130
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        assert [r.status for r in store.runs("study")] == ["cancelled"]
    (tmp_path / "interrupt").unlink()
    assert "done 1, failed 0" in run("study", "run", "s.yaml", "-q").out


HOST = "".join(c if c.isalnum() or c == "_" else "_" for c in socket.gethostname())


def gone():
    """Return the id of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def left(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_folders_of_processes_that_are_gone_are_swept_at_the_next_start(tmp_path):
    kept = [f".x.{HOST}-{os.getppid()}.aaaaaaaa.part", ".x.otherhost-1.aaaaaaaa.part", ".x.ab.part"]
    other = [f".x.y.{HOST}-{gone()}.aaaaaaaa.part", ".xx.ab.part"]
    for name in (f".x.{HOST}-{gone()}.aaaaaaaa.part", *kept, *other):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    with new_folder(tmp_path / "x", force=False):
        pass
    assert left(tmp_path) == sorted(kept + other)
    with new_folder(tmp_path / "x", force=True):
        pass
    assert left(tmp_path) == sorted([kept[0], *other])


def test_a_run_that_was_moved_aside_by_a_process_that_died_comes_back(tmp_path):
    old = tmp_path / f".x.{HOST}-{gone()}.aaaaaaaa.old"
    old.mkdir()
    (old / "run.json").write_text("{}")
    with (
        pytest.raises(InputError, match="is there; choose another place"),
        new_folder(tmp_path / "x", force=False),
    ):
        pass
    assert (tmp_path / "x" / "run.json").read_text() == "{}"
    assert left(tmp_path) == []


def test_a_killed_run_leaves_a_folder_that_the_next_one_sweeps(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from unlearnkit.cli.run_folder import new_folder\n"
        "with new_folder(Path(sys.argv[1]), force=False): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    assert len(left(tmp_path)) == 1
    with new_folder(tmp_path / "x", force=False):
        pass
    assert left(tmp_path) == []


def test_a_report_and_its_page_are_written_both_or_neither(run, counted, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    folder = tmp_path / "runs" / "x"
    assert unlearn(run, counted, "--out", "runs/x", "-q").code == 0
    (folder / "report.html").mkdir()
    said = run("audit", "x", "--trust", "--tier", "fast", "-q")
    assert said.code == 1
    assert "report.html" in said.err
    assert said.err.count("\n") == 1
    assert not (folder / "report.json").exists()
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        assert [r.status for r in store.runs("audit")] == ["failed"]
    (folder / "report.html").rmdir()
    assert run("audit", "x", "--trust", "--tier", "fast", "-q").code == 0
    verdict = Report.load(folder / "report.json").verdict
    assert verdict in (folder / "report.html").read_text()


FULL = """
import resource, sys
from pathlib import Path
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_together
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_together({Path(sys.argv[1]): b"n" * 10, Path(sys.argv[2]): b"n" * 5000})
except InputError as e:
    print(e)
"""


def test_files_that_belong_together_find_room_together(tmp_path):
    pytest.importorskip("resource")
    places = [tmp_path / "report.json", tmp_path / "report.html"]
    write_together(dict.fromkeys(places, b"old"))
    done = subprocess.run(
        [sys.executable, "-c", FULL, *map(str, places)], check=False, capture_output=True, text=True
    )
    assert done.stdout.count("\n") == 1
    assert "cannot write" in done.stdout, done.stderr
    assert "report.html" in done.stdout
    assert [p.read_bytes() for p in places] == [b"old", b"old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]
