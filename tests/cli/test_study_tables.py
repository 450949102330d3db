"""The commands that print and write a study's tables."""

import json

import pytest

from tests.studies.made import filled, study
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.table.study_table import Table

FILE = """
name: made
cases: digits
requests: [class=3, random_tenth]
methods: [finetune, ssd, neggrad_plus, scrub]
seeds: 5
oracles: 5
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "study.yaml").write_text(FILE)
    filled(tmp_path / "s.sqlite", expand(study())).close()
    return [str(tmp_path / "study.yaml"), "--store", str(tmp_path / "s.sqlite")]


def test_a_study_is_shown_as_text_and_as_data(run, place):
    text = run("study", "show", *place).out
    assert "40 of 40 runs done, 0 failed" in text
    data = run("study", "show", *place, "--metrics", "js_forget,cost_seconds", "--json").out
    table = Table.model_validate_json(data)
    assert [c["id"] for c in json.loads(data)["columns"]] == ["js_forget", "cost_seconds"]
    assert table.done == 40


@pytest.mark.parametrize("ending", ["html", "csv", "json", "txt"])
def test_a_study_is_written_where_asked(run, place, tmp_path, ending):
    said = run("study", "report", *place, "--out", str(tmp_path / f"t.{ending}"))
    assert said.out.strip() == str(tmp_path / f"t.{ending}")
    assert (tmp_path / f"t.{ending}").stat().st_size > 1000


def test_an_unknown_column_is_told_with_the_nearest(run, place):
    assert "Did you mean 'js_forget'?" in run("study", "show", *place, "--metrics", "js_forgt").err
