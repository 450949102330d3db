"""Every command ends in one line and an exit code, whatever it is given."""

import pathlib
import shlex
import subprocess
import sys

import pytest

LONG = "x" * 300
USER_CODE = {
    "syntax": "def f(:\n",
    "raises": "raise RuntimeError('boom')\n",
    "exits": "import sys\nsys.exit(0)\n",
    "own": "def fails():\n    raise ValueError('oh no')\ndef takes(x):\n    return x\n",
}
CASES = {
    "os:system": "without arguments",
    "../x:f": "names of Python",
    "sys:exit": "sys:exit raised SystemExit",
    "syntax:f": "invalid syntax",
    "raises:f": "RuntimeError: boom",
    "exits:f": "raised SystemExit",
    "own:fails": "own:fails raised ValueError: oh no",
    "own:takes": "without arguments",
    "own": "'own' is a module; name its function that returns a Case, such as own:make_case",
    "own.py:fails": "got 'own.py'; write own:fails in the folder that holds it",
}


def refused(said, told):
    assert said.code == 1
    assert said.out == ""
    assert told in said.err
    assert said.err.count("\n") == 1
    assert "unexpected" not in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_cannot_be_made_is_refused(run, tmp_path, monkeypatch, name):
    for module, text in USER_CODE.items():
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    refused(run("unlearn", name, "--forget", "class=3", "-q"), CASES[name])


DIGITS = ("unlearn", "digits", "--forget", "class=3", "-q")
WORDS = {
    "a deep name": ((*DIGITS, "-p", "a." * 20000 + "b=1"), "at most 16 parts"),
    "a deep value": ((*DIGITS, "-p", "run=" + "[" * 20000), "no YAML"),
    "a huge seed": ((*DIGITS, "--seed", 2**70), "seed: input should be less than"),
    "a long folder": ((*DIGITS, "--out", LONG), "File name too long"),
    "a long name": ((*DIGITS, "--name", LONG), "File name too long"),
    "a long model": ((*DIGITS, "--model", LONG), "File name too long"),
    "a long job": (("unlearn", "--config", LONG), "File name too long"),
    "a long run": (("audit", LONG), "File name too long"),
    "a long study": (("study", "plan", LONG), "File name too long"),
    "no UTF-8": ((*DIGITS, "--out", "\udcff"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_that_cannot_be_used_are_refused(run, name):
    words, told = WORDS[name]
    refused(run(*words), told)


def test_a_user_without_a_home_is_told_what_to_set(run, monkeypatch):
    for name in ("UNLEARNKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", classmethod(homeless))
    refused(run("cache", "ls"), "set UNLEARNKIT_CACHE")


def test_a_study_of_a_million_runs_is_counted_and_needs_a_word(run, tmp_path):
    grid = ", ".join(str(1 + i / 1000) for i in range(1000))
    (tmp_path / "s.yaml").write_text(
        "name: s\ncases: digits\nrequests: [class=3]\nseeds: 1\nmethods:\n"
        f"  - finetune: {{grid: {{run.lr: [{grid}], run.decay: [{grid}]}}}}\n"
    )
    for command in ("plan", "run", "show", "report"):
        refused(run("study", command, "s.yaml"), "about 1,000,000 runs")


def test_a_million_oracles_are_told_with_their_cost_and_need_a_word(run, small):
    assert run("unlearn", small, "--forget", "class=1", "--out", "r", "-q").code == 0
    words = ["audit", "r", "--oracles", 1_000_000, "-q"]
    if "--trust" in run("audit", "--help").out:
        words.append("--trust")
    refused(run(*words), "1,000,000 models to retrain")


def test_a_table_shows_few_of_50000_rows(run, small, tmp_path):
    from unlearnkit.studies.table.captions import short_request

    shown = short_request("rows=" + ",".join(map(str, range(50_000))))
    assert shown == "rows=0,1,2,3,4,5,6,7,... (50000 values)"
    (tmp_path / "s.yaml").write_text(
        f"name: s\ncases: {small}\nrequests: ['rows={','.join(map(str, range(40)))}']\nseeds: 1\n"
        "methods: [finetune]\ntier: fast\n"
    )
    said = run("study", "show", "s.yaml")
    assert "(40 values)" in said.out
    assert "37,38,39" not in said.out


STREAMS = {
    "stdout full": (">/dev/full", "stdout: No space left on device"),
    "stdout closed": (">&-", "stdout: it is closed"),
    "stderr full": ("nix 2>/dev/full", ""),
    "stderr closed": ("nix 2>&-", ""),
}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_cannot_be_written_is_one_line_at_most(name):
    words, told = STREAMS[name]
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m unlearnkit cache ls {words}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_one_model_is_counted_as_one(run, small):
    assert run("unlearn", small, "--forget", "class=1", "--out", "r", "-q").code == 0
    said = run("audit", "r", "--oracles", 1, "--trust")
    assert said.err.startswith("at most 1 model to retrain, ")
