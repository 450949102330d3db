"""The published JSON Schemas: files that the program writes fit them, and edited files do not."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from tests.report.published_schemas import checker
from tests.report.report_samples import SAMPLES
from unlearnkit.json_schemas import FILES, json_schema
from unlearnkit.report.report import Report
from unlearnkit.studies.spec import Study


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    from typer.testing import CliRunner

    from unlearnkit.cli.commands import app

    at = tmp_path_factory.mktemp("schemas")
    words = ["unlearn", "digits", "--forget", "class=3", "--method", "ssd", "--out", str(at / "r")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return at / "r"


@pytest.mark.parametrize("name", FILES)
def test_each_is_a_schema_of_the_dialect_that_it_names(name):
    found = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("sample", SAMPLES)
def test_reports_fit(sample):
    report = SAMPLES[sample]()
    checker("report").validate(json.loads(report.content(Path("r.json"))))


def test_infinite_numbers_fit_as_words():
    report = SAMPLES["full"]()
    row = report.rows[0].model_copy(update={"z": float("inf")})
    report = report.model_copy(update={"rows": (row, *report.rows[1:])})
    written = json.loads(report.content(Path("r.json")))
    assert written["rows"][0]["z"] == "Infinity"
    checker("report").validate(written)
    assert Report.model_validate(written).rows[0].z == float("inf")


def test_a_run_fits(run_folder):
    checker("run").validate(json.loads((run_folder / "run.json").read_text("utf-8")))


def test_a_study_in_full_form_fits():
    study = Study(cases="digits", requests="class=3", methods=["ssd"], name="one")
    checker("study").validate(json.loads(study.model_dump_json()))


def edits(content, needed):
    """Yield copies of a file with a field too many, one of another type, and one that is gone."""
    yield {**content, "surprise": 1}
    for name, value in content.items():
        wrong = copy.deepcopy(content)
        wrong[name] = 3.5 if value is None or isinstance(value, dict) else {"not": "this"}
        yield wrong
    yield {name: value for name, value in content.items() if name != needed}


def test_edited_files_do_not_fit(run_folder):
    report = json.loads(SAMPLES["full"]().content(Path("r.json")))
    run = json.loads((run_folder / "run.json").read_text("utf-8"))
    for name, content, needed in (("report", report, "verdict"), ("run", run, "key")):
        check = checker(name)
        assert [wrong for wrong in edits(content, needed) if check.is_valid(wrong)] == []
