"""A plan trains nothing: rows that trained models point out are said to be unknown."""

import json

import pytest
from typer.testing import CliRunner

import unlearnkit as uk
from tests.studies.conftest import small, words
from unlearnkit.cli.commands import app
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.studies.planning.plan import UnknownRows, plan, summary
from unlearnkit.testing import toy_case
from unlearnkit.train import training_guard
from unlearnkit.train.training_guard import TrainingForbiddenError, no_training

REQUESTS = ["memorised_tenth", "class", "memorized_tenth_leave_out"]


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A cache of its own in which nothing is."""
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_requests_that_need_trained_models_are_listed_and_nothing_is_trained(store, cache, empty):
    found = plan(small(cases=["digits"], requests=REQUESTS), store, cache)
    assert found.unknown == (
        UnknownRows("digits", "memorised_tenth", 1),
        UnknownRows("digits", "memorized_tenth_leave_out", 64),
    )
    assert {r.request for r in found.runs} == {"class"}
    assert len(found.todo) == 4
    assert not list(empty.rglob("*.safetensors"))
    assert summary(found)["rows unknown"] == (
        "digits memorised_tenth needs 1 trained model to know its rows;"
        " digits memorized_tenth_leave_out needs 64 trained models to know its rows"
    )


def test_the_command_says_so_too_and_trains_nothing(tmp_path, empty):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(words(cases=["digits"], requests=["memorised_tenth"])))
    asked = ["study", "plan", str(file), "--store", str(tmp_path / "s.sqlite"), "--json"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["unknown"] == [
        {"case": "digits", "request": "memorised_tenth", "models": 1}
    ]
    assert not list(empty.rglob("*.safetensors"))


def test_a_study_whose_rows_are_known_lists_no_request(store, cache):
    found = plan(small(), store, cache)
    assert found.unknown == ()
    assert "rows unknown" not in summary(found)


def test_every_training_is_refused_where_none_may_be(cache):
    case = toy_case(uk.Classification(3))
    with no_training():
        with pytest.raises(TrainingForbiddenError):
            uk.train_original(case, cache=cache)
        with pytest.raises(TrainingForbiddenError):
            uk.oracle(case, uk.Rows([0, 1]), seeds=3, cache=cache)
    training_guard.check_training_allowed()
    assert issubclass(TrainingForbiddenError, UnlearnkitError)
