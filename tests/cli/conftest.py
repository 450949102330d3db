"""The command line, run in this process in a folder of its own."""

import json
from dataclasses import dataclass

import pytest

from unlearnkit.cli import main


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["unlearnkit", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Said(end.value.code or 0, said.out, said.err)

    return call


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A module of the user's own with a case that trains in a blink; its name."""
    (tmp_path / "small_case.py").write_text(
        "from unlearnkit.tasks.classification import Classification\n"
        "from unlearnkit.testing import toy_case\n"
        "def make():\n    return toy_case(Classification(3))\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "small_case:make"
