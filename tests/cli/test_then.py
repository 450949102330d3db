"""A run that goes on from another: its model, its case without the rows, and its record."""

import json

import pytest
import torch

import unlearnkit as uk
from unlearnkit.checkpoint import load_weights
from unlearnkit.oracles import oracle

MODULE = """
import unlearnkit as uk
from unlearnkit.testing import toy_case

made = []

def make():
    made.append(1)
    toy = toy_case(uk.Classification(3))
    return uk.Case(
        train=(toy.train.x + SHIFT, toy.train.y), test=(toy.test.x, toy.test.y), task=toy.task,
        keys=[f"a{i}" for i in range(len(toy.train))], fresh=toy.fresh, recipe=toy.recipe,
    )

def parts():
    toy = toy_case(uk.Classification(3))
    x, y = toy.train.x, toy.train.y
    return uk.Case.from_parts(
        forget=(x[:5], y[:5]), retain=(x[5:], y[5:]), task=toy.task, fresh=toy.fresh,
        recipe=toy.recipe,
    )

SHIFT = 0.0
"""
FIRST, SECOND = "rows=a3,a1", "rows=a0,a7"


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "chain_case.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "chain_case", raising=False)
    import chain_case

    return chain_case


@pytest.fixture
def first(run, module, tmp_path):
    said = run(
        *("unlearn", "chain_case:make", "--forget", FIRST, "--method", "neggrad_plus"),
        *("-p", "balance=0.2", "--seed", "3", "--name", "a", "-q"),
    )
    assert said.code == 0, said.err
    return tmp_path / "runs" / "a"


def then(run, *words, of="runs/a"):
    return run("unlearn", of, "--then", "--case", "chain_case:make", *words, "-q")


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_next_run_is_the_python_call_on_the_model_and_the_case_that_are_left(
    run, module, first, tmp_path
):
    said = then(run, "--forget", SECOND)
    assert said.code == 0, said.err
    folder = tmp_path / "runs" / "make_then-rows=a0,a7-neggrad_plus"
    case = module.make()
    before = load_weights(case.fresh(), first / "model.safetensors")
    how = uk.method("neggrad_plus", balance=0.2)
    want = uk.unlearn(
        before, case.after_deletion(FIRST), SECOND, how, uk.Runtime.on("cpu", seed=3)
    ).model.state_dict()
    found = load_weights(case.fresh(), folder / "model.safetensors").state_dict()
    assert all(torch.equal(found[k], want[k]) for k in want)
    made, parent = record(folder), record(first)
    assert made["continues"] == {"record": parent["digests"]["record"], "requests": 1, "rows": 2}
    assert made["job"]["after"] == [{"kind": "rows", "rows": ["a3", "a1"]}]
    assert made["digests"]["original"] == parent["digests"]["unlearned"]


def test_a_third_run_counts_all_before_it_and_its_record_repeats_it(run, first, tmp_path):
    assert then(run, "--forget", SECOND, "--name", "b").code == 0
    said = then(run, "--forget", "class=2", "--method", "finetune", "--name", "c", of="b")
    assert said.code == 0, said.err
    made = record(tmp_path / "runs" / "c")
    assert (made["continues"]["requests"], made["continues"]["rows"]) == (2, 4)
    assert [w["rows"] for w in made["job"]["after"]] == [["a3", "a1"], ["a0", "a7"]]
    again = run("unlearn", "--trust", "--config", "runs/c/run.json", "--name", "d", "-q")
    assert again.code == 0, again.err
    assert record(tmp_path / "runs" / "d")["digests"] == {
        **made["digests"],
        "record": record(tmp_path / "runs" / "d")["digests"]["record"],
    }


def test_an_audit_compares_with_models_that_never_saw_any_deleted_row(
    run, module, first, monkeypatch
):
    assert then(run, "--forget", SECOND, "--name", "b").code == 0
    seen = []

    def spy(case, request, **rest):
        retain = case.partition(request).retain
        seen.append(retain.data.x[retain.rows])
        return oracle(case, request, **rest)

    monkeypatch.setattr("unlearnkit.cli.runs.oracle", spy)
    said = run("audit", "--trust", "b", "--oracles", "2", "--json", "-q")
    assert said.code == 0, said.err
    train = module.make().train.x
    stay = [i for i in range(len(train)) if i not in {0, 1, 3, 7}]
    assert torch.equal(seen[0], train[stay])
    told = " ".join(said.data["provenance"]["notes"])
    assert "had answered 1 request (2 rows); retrained models are without" in told


def test_show_names_the_earlier_requests_and_what_a_run_continues(run, first, tmp_path):
    assert then(run, "--forget", SECOND, "--name", "b").code == 0
    said = run("show", "runs/b")
    assert said.code == 0, said.err
    assert "Earlier requests: rows=a3,a1" in said.out
    assert "Request: rows=a0,a7" in said.out
    assert record(first)["digests"]["record"] in "".join(said.out.split())
    assert run("show", "runs/b", "--json").data == record(tmp_path / "runs" / "b")
    assert "Earlier" not in run("show", "runs/a").out
    (first / "run.json").write_text("{}")
    assert "is no record of a run" in run("show", "runs/a").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--forget", "rows=a3,a5"), "rows: 1 of 2 are already deleted: 'a3'; name only what is"),
        (("--forget", "rows=zz,a5"), "rows: 1 of 2 are no key of the case: 'zz'; it has"),
        (("--forget", "class=1", "--out", "runs/a", "--force"), "is the run that is continued"),
        (("--forget", "random"), "expected class=3"),
    ],
)
def test_what_cannot_come_next_is_one_line(run, first, tmp_path, words, told):
    said = then(run, *words)
    assert said.code == 1
    assert told in said.err
    assert said.err.count("\n") == 1
    assert len(said.err) <= 300
    assert [p.name for p in (tmp_path / "runs").glob("*/run.json")] == ["run.json"]


@pytest.mark.parametrize(
    "words",
    [
        ("--then", "--forget", "class=1"),
        ("runs/a", "--then"),
        ("runs/a", "--then", "--forget", "class=1", "--model", "x.pt"),
        ("digits", "--case", "chain_case:make"),
        ("runs/a", "--then", "--forget", "class=1", "--config", "runs/a/run.json"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_usage_errors(run, first, words):
    assert run("unlearn", *words).code == 2


@pytest.mark.parametrize("name", ["model", "original"])
def test_other_weights_than_those_of_the_record_are_refused(run, module, first, name):
    uk.save_weights(module.make().fresh(), first / f"{name}.safetensors")
    said = then(run, "--forget", SECOND)
    assert said.code == 1
    assert f"{name}.safetensors' was changed after the run" in said.err


def test_an_edited_record_is_refused(run, first):
    text = (first / "run.json").read_text()
    (first / "run.json").write_text(text.replace('"a3"', '"a4"'))
    said = then(run, "--forget", SECOND)
    assert said.code == 1
    assert "was changed after the run" in said.err


def test_a_case_with_other_rows_than_the_runs_is_refused(run, module, first, monkeypatch):
    monkeypatch.setattr(module, "SHIFT", 1.0)
    said = then(run, "--forget", SECOND)
    assert said.code == 1
    assert "training rows of chain_case:make are no longer those of the run" in said.err


def test_a_chain_that_is_not_that_of_the_folder_is_refused(run, first, tmp_path):
    assert then(run, "--forget", SECOND, "--name", "b").code == 0
    job = record(tmp_path / "runs" / "b")["job"]
    job["after"] = [{"kind": "rows", "rows": ["a3"]}]
    (tmp_path / "job.json").write_text(json.dumps(job))
    said = run("unlearn", "--config", "job.json", "--name", "c", "-q")
    assert said.code == 1
    assert "answered other requests than the job names before its own" in said.err


def test_code_that_the_record_names_is_imported_only_if_the_user_says_so(run, first):
    import sys

    del sys.modules["chain_case"]
    said = run("unlearn", "runs/a", "--then", "--forget", SECOND)
    assert said.code == 1
    assert "names code that would be imported and run, 'chain_case:make'" in said.err
    assert "(--case CASE)" in said.err
    assert "chain_case" not in sys.modules
    assert run("unlearn", "runs/a", "--then", "--trust", "--forget", SECOND, "-q").code == 0


def test_a_run_of_parts_has_no_next_request(run, module):
    uk.save_weights(module.make().fresh(), "w.safetensors")
    given = ("--model", "w.safetensors", "--name", "a", "-q")
    assert run("unlearn", "chain_case:parts", *given).code == 0
    said = run("unlearn", "runs/a", "--then", "--trust", "--forget", "class=1", "-q")
    assert said.code == 1
    assert "was made from parts" in said.err


def test_records_written_before_runs_were_continued_stay_valid(run, first):
    old = record(first)
    assert "after" not in old["job"]
    assert "continues" not in old
    (first / "run.json").write_text(json.dumps(old | {"continues": None}))
    said = then(run, "--forget", SECOND)
    assert said.code == 0, said.err


def test_positions_after_a_deletion_are_refused_and_named_requests_of_one_set_are_not(
    run, module, monkeypatch
):
    from unlearnkit import catalog
    from unlearnkit.cases.registry import CaseEntry, CaseWithRequest
    from unlearnkit.core.request import Classes, Rows

    def plain():
        return module.make().replace(keys=uk.Case(train=([[0.0]], [0]), task="regression").keys)

    def other():
        case = plain()
        return CaseWithRequest(case.replace(train=case.train.pick(torch.arange(9))), Classes(0))

    entry = CaseEntry(
        "plain",
        plain,
        {
            "few": lambda: CaseWithRequest(plain(), Rows(0, 1)),
            "class": lambda: CaseWithRequest(plain(), Classes(1)),
            "other": other,
        },
        "toy",
    )
    monkeypatch.setattr(catalog, "cases", lambda: {"plain": entry})
    assert run("unlearn", "plain", "--forget", "few", "--name", "a", "-q").code == 0
    told = {
        "rows=0,1": "positions changed when 2 rows were deleted before",
        "few": "positions changed when 2 rows were deleted before",
        "other": "'other' brings another training set than that of the requests before",
    }
    for words, what in told.items():
        said = run("unlearn", "a", "--then", "--forget", words, "--name", "b", "-q")
        assert said.code == 1
        assert what in said.err
    assert run("unlearn", "a", "--then", "--forget", "class", "--name", "b", "-q").code == 0


def test_a_further_request_reads_the_case_once(run, module, first):
    module.made.clear()
    assert then(run, "--forget", SECOND).code == 0
    assert len(module.made) == 1
