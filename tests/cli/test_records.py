"""A run's folder is data that is checked: against itself, against its case, and never run."""

import json
import shlex

import pytest

import unlearnkit as uk
from unlearnkit.core.errors import InputError
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case

MODULE = """
import json
from pathlib import Path
import torch
from torch import nn
from unlearnkit import Case, Recipe
(Path(__file__).parent / "imported").touch()
def make():
    knobs = json.loads((Path(__file__).parent / "knobs.json").read_text())
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 6, generator=rng), torch.arange(60) % 3
    test = torch.randn(30, 6, generator=rng) + knobs["test"]
    held = torch.randn(30, 6, generator=rng) + knobs["held"]
    act = nn.Tanh if knobs["tanh"] else nn.ReLU
    return Case(
        train=(x + knobs["train"], y), test=(test, torch.arange(30) % 3),
        held_out=(held, torch.arange(30) % 3), task="classification",
        fresh=lambda: nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 3)),
        recipe=Recipe(lr=0.1, epochs=knobs["epochs"], batch_size=16),
        group=(torch.arange(60) + knobs["owner"]) // 6,
    )
"""
KNOBS = {"train": 0, "test": 0, "held": 0, "tanh": False, "epochs": 2, "owner": 0}


@pytest.fixture
def knobs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "knobs_case", raising=False)
    (tmp_path / "knobs_case.py").write_text(MODULE)

    def turn(**some):
        (tmp_path / "knobs.json").write_text(json.dumps({**KNOBS, **some}))

    turn()
    return turn


@pytest.fixture
def folder(run, knobs, tmp_path):
    said = run("unlearn", "knobs_case:make", "--forget", "group=1", "--name", "a", "-q")
    assert said.code == 0, said.err
    return tmp_path / "runs" / "a"


def audit(run, *words):
    return run("audit", "a", "--tier", "fast", *words)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("job", "forget", "groups"), [2], "was changed after the run"),
        (("seconds",), 0.5, "was changed after the run"),
        (("seconds",), float("nan"), "the first is seconds"),
        (("forward",), -1, "the first is forward"),
        (("schema_version",), 99, "the first is schema_version: Input should be 1 or 2"),
        (("notes",), ["harmless"], "was changed after the run"),
        (("digests", "test"), "0" * 64, "was changed after the run"),
    ],
    ids=str,
)
def test_a_record_that_was_edited_is_refused(run, folder, path, value, told):
    record = json.loads((folder / "run.json").read_text())
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "run.json").write_text(json.dumps(record))
    said = audit(run, "--trust")
    assert said.code == 1
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not (folder / "report.json").exists()


@pytest.mark.parametrize(
    ("knob", "value", "told"),
    [
        ("train", 1, "training rows"),
        ("test", 1, "test rows"),
        ("held", 1, "held-out rows"),
        ("epochs", 3, "recipe"),
        ("owner", 1, "owners of the rows, rows to forget"),
    ],
)
def test_a_case_that_has_changed_since_the_run_is_refused(run, folder, knobs, knob, value, told):
    knobs(**{knob: value})
    said = audit(run, "--trust")
    assert said.code == 1
    assert f"{told} of knobs_case:make are no longer those of the run" in said.err


def test_another_architecture_is_told_at_the_head_of_the_report(run, folder, knobs):
    knobs(tanh=True)
    said = audit(run, "--trust", "--json")
    assert said.code == 0, said.err
    assert "layers has changed since the run" in said.data["warnings"][0]


def test_a_record_of_the_first_version_is_audited_and_the_report_says_what_it_lacks(run, folder):
    record = json.loads((folder / "run.json").read_text())
    record["schema_version"] = 1
    record["digests"] = {k: record["digests"][k] for k in ("train", "original", "unlearned")}
    (folder / "run.json").write_text(json.dumps(record))
    said = audit(run, "--trust", "--json")
    assert said.code == 0, said.err
    assert "is of an older version" in said.data["warnings"][0]


def test_code_that_a_record_names_is_not_imported_unless_the_user_says_so(run, folder, tmp_path):
    import sys

    del sys.modules["knobs_case"]
    mark = tmp_path / "imported"
    mark.unlink()
    for words in (
        ("audit", "a", "--tier", "fast"),
        ("unlearn", "--config", "runs/a/run.json", "--name", "b"),
    ):
        said = run(*words)
        assert said.code == 1
        assert "names code that would be imported and run, 'knobs_case:make'" in said.err
        assert not mark.exists()
    assert audit(run, "--case", "knobs_case:make").code == 0
    assert mark.exists()
    said = run("unlearn", "knobs_case:make", "--config", "runs/a/run.json", "--name", "b", "-q")
    assert said.code == 0, said.err


def test_the_next_command_that_is_named_works_as_it_stands(run, folder):
    said = run("unlearn", "knobs_case:make", "--forget", "group=1", "--out", "it's ü")
    assert said.code == 0, said.err
    (words,) = (line for line in said.err.splitlines() if line.startswith("next: "))
    assert run(*shlex.split(words)[2:], "--tier", "fast").code == 0


def test_an_oracle_of_another_recipe_or_task_is_refused():
    case = toy_case(Classification(3))
    done = uk.unlearn(case.fresh(), case, uk.Rows(range(6)), "finetune")
    other = case.replace(recipe=replace_epochs(case.recipe, 3))
    with pytest.raises(InputError, match="oracle: trained with another recipe"):
        uk.audit(done, oracle=uk.oracle(other, uk.Rows(range(6)), seeds=1))


def replace_epochs(recipe, epochs):
    return recipe.model_copy(update={"epochs": epochs})
