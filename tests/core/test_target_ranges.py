"""Real targets can be asked for by their range, in Python, as text and in YAML."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

import unlearnkit as uk
from unlearnkit.auditing.request_summary import describe_request
from unlearnkit.cli.commands import app
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import parse_request
from unlearnkit.job import Job

X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
CASE = uk.Case(train=(X, torch.arange(20.0)), task="regression")
TWO = uk.Case(
    train=(X, torch.stack([torch.arange(20.0), -torch.arange(20.0)], 1)), task=uk.Regression(2)
)


def forgotten(request, case=CASE):
    return case.partition(parse_request(request)).forget.rows.tolist()


@pytest.mark.parametrize(
    ("request_", "want"),
    [
        ("target<3", [0, 1, 2]),
        ("target <= 3", [0, 1, 2, 3]),
        ("targets>17", [18, 19]),
        ("target>=17", [17, 18, 19]),
        ("3>target", [0, 1, 2]),
        ("4<=target<7", [4, 5, 6]),
        ("4<target<=7.5", [5, 6, 7]),
        ("7>target>=4", [4, 5, 6]),
        ("target[0]<1e0", [0]),
        (uk.Targets(at_least=4, below=7), [4, 5, 6]),
        (uk.Targets("4<=target<7"), [4, 5, 6]),
        ({"target": {"below": 3}}, [0, 1, 2]),
        ({"targets": "target<3"}, [0, 1, 2]),
        ({"kind": "targets", "above": 17}, [18, 19]),
    ],
    ids=repr,
)
def test_a_range_in_all_words(request_, want):
    assert forgotten(request_) == want


def test_a_target_of_several_is_named_by_its_number():
    assert forgotten("target[1]<-17", TWO) == [18, 19]
    with pytest.raises(InputError, match=re.escape("write target[0]<3")):
        forgotten("target<3", TWO)
    with pytest.raises(InputError, match="there are targets 0 to 1, got 2"):
        forgotten("target[2]<3", TWO)


@pytest.mark.parametrize(
    "words",
    ["target<30", "target>=0.1", "-1.5<target<=2", "target[3]<1e-07", "target<0.30000000000000004"],
)
def test_a_range_survives_json_and_its_own_words(words):
    request = parse_request(words)
    assert request.words == words
    assert parse_request(json.loads(request.model_dump_json())) == request
    assert parse_request(request.words) == request


def test_a_bound_is_met_by_a_target_of_single_precision():
    case = uk.Case(train=(X[:4], torch.tensor([0.1, 0.2, 0.3, 0.4])), task="regression")
    assert forgotten("target<=0.3", case) == [0, 1, 2]
    assert forgotten("target<0.3", case) == [0, 1]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("target<0", "forget: target<0 names no row (0 of 20); targets lie between 0 and 19:"),
        ("target<30", "forget: target<30 names all rows (20 of 20); targets lie between 0 and 19"),
        ("target<x", "expected a range such as target<30 or 10<=target<30, got 'target<x'"),
        ("target<3<4", "expected a range such as target<30"),
        ("3<target>4", "expected a range such as target<30"),
        ("target<nan", "name one finite lower bound"),
        ({"target": {}}, "name one finite lower bound, one upper bound or both, got target;"),
        ({"target": {"above": 1, "at_least": 2}}, "name one finite lower bound"),
        ({"target": {"under": 1}}, "no setting of Targets 'under'. There are: above, at_least"),
        ({"target": {"below": "x"}}, "below: input should be a valid number"),
        ("age<30", "feature=age or labels=@file.csv, got 'age<30'"),
    ],
    ids=repr,
)
def test_a_wrong_range_is_told_in_a_line(request_, told):
    with pytest.raises(InputError) as error:
        forgotten(request_)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_are_no_range_of_targets():
    case = uk.Case(train=(X, torch.arange(20) % 4), task="classification")
    with pytest.raises(
        UnsupportedError, match=r"needs real targets, got torch.int64; name classes"
    ):
        forgotten("target<2", case)


def test_reports_and_folders_name_the_range():
    request = parse_request("target<3")
    assert describe_request(request, 3) == "forget target<3 (3 rows)"
    job = Job(case="diabetes", forget="target<-1", method="ssd")
    case, asked = job.resolve()
    assert asked == uk.Targets(below=-1)
    exact = job.with_all_settings(asked, job.build())
    assert exact.request_text() == "target<-1"
    assert exact.resolve()[1] == asked
    assert bool((case.train.y[case.partition(asked).forget.rows] < -1).all())


def test_the_command_line_takes_a_range(tmp_path):
    words = ["unlearn", "diabetes", "--method", "ssd", "--forget"]
    out = tmp_path / "run"
    done = CliRunner().invoke(app, [*words, "target<-1.2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads((out / "run.json").read_text())["job"]["forget"]["below"] == -1.2
    told = CliRunner().invoke(app, [*words, "target>99", "--out", str(tmp_path / "other")])
    assert isinstance(told.exception, InputError)
    assert "target>99 names no row (0 of 310)" in str(told.exception)
