"""``auto`` from the command line, in records and in studies."""

import json

import pytest
import yaml

from unlearnkit import catalog
from unlearnkit.cache import Cache
from unlearnkit.core.auto_method import Auto
from unlearnkit.methods.gradient_ascent import GradientAscent
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run as run_unlearn
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.problem import method_of
from unlearnkit.studies.spec import make_study

TOY = "tests.studies.toys:toy"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A module whose case is a classifier of three clouds that was trained for longer."""
    (tmp_path / "made_case.py").write_text(
        "from unlearnkit.tasks.classification import Classification\n"
        "from unlearnkit.testing import toy_case\n"
        "def make():\n"
        "    case = toy_case(Classification(3))\n"
        "    return case.replace(recipe=case.recipe.model_copy(update={'epochs': 40}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "made_case:make"


def test_a_run_says_which_and_why_on_stderr_on_stdout_and_in_the_record(run, made, tmp_path):
    said = run("unlearn", made, "--forget", "class=1", "--method", "auto", "--out", "x")
    assert said.code == 0, said.err
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    choice = record["auto"]
    assert choice["passed"]
    assert choice["line"] == "shallow_class"
    assert record["job"]["method"] == choice["candidate"].split()[0]
    assert f"note: auto: {choice['why']}" in said.err
    assert choice["why"] in said.out
    assert record["forward"] + 2 * record["backward"] == pytest.approx(
        choice["cost"] * 3 * 40 * 40, rel=0.1
    )


def test_the_record_runs_again_to_the_same_bits_with_the_method_that_was_chosen(run, made):
    first = run("unlearn", made, "--forget", "class=1", "--method", "auto", "--out", "x", "--json")
    again = run("unlearn", "--trust", "--config", "x/run.json", "--out", "y", "--json")
    assert again.data["digests"]["unlearned"] == first.data["digests"]["unlearned"]
    assert again.data["auto"] is None


def test_a_run_that_auto_made_can_be_audited(run, made):
    run("unlearn", made, "--forget", "class=1", "--method", "auto", "--out", "x")
    said = run("audit", "--trust", "x", "--tier", "fast", "--json")
    assert said.code == 0, said.err
    assert any(n.startswith("auto: ") for n in said.data["warnings"])


def test_where_nothing_can_run_the_exit_code_is_1_and_no_folder_is_left(run, made, tmp_path):
    words = ("--method", "auto", "--max-cost", "0.01", "--out", "x")
    said = run("unlearn", made, "--forget", "class=1", *words)
    assert said.code == 1
    assert "a larger budget lets more of them run" in said.err
    assert not (tmp_path / "x").exists()


def test_a_damaged_model_is_told_on_stderr_and_its_folder_is_marked(run, tmp_path, monkeypatch):
    # Every label is a coin's, so that no candidate but retraining keeps the training accuracy.
    (tmp_path / "coin_case.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from unlearnkit.core.case import Case\n"
        "from unlearnkit.core.recipe import Recipe\n"
        "from unlearnkit.tasks.classification import Classification\n"
        "def net():\n"
        "    return nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 64),\n"
        "                         nn.ReLU(), nn.Linear(64, 2))\n"
        "def make():\n"
        "    rng = torch.Generator().manual_seed(0)\n"
        "    draw = lambda n: (torch.randn(n, 20, generator=rng),\n"
        "                      torch.randint(0, 2, (n,), generator=rng))\n"
        "    return Case(train=draw(400), test=draw(200), task=Classification(2), fresh=net,\n"
        "                recipe=Recipe(lr=0.1, epochs=60, batch_size=20), name='coins')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--forget", "rows=0:200", "--method", "auto", "--max-cost", "0.12", "--out", "x")
    said = run("unlearn", "coin_case:make", *words)
    assert said.code == 0
    assert "note: auto: NOT PASSED: " in said.err
    assert "this model has forgotten but answers worse than it should" in said.err
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    assert not record["auto"]["passed"]
    assert record["auto"]["cost"] <= 0.12
    more = run("unlearn", "--trust", "--then", "x", "--forget", "rows=0:10", "--out", "y")
    assert more.code == 1
    assert "failed its audit" in more.err


class Unmoved(GradientAscent):
    """Reads the forget rows and changes nothing."""

    def apply(self, p, rt):
        for batch in p.forget.batches(16, rt):
            p.task.outputs(p.model, batch)
        return p.model


def test_where_nothing_passes_the_exit_code_is_1_and_the_folder_is_marked(
    run, tmp_path, monkeypatch
):
    (tmp_path / "parts_case.py").write_text(
        "from unlearnkit.core.case import Case\n"
        "from unlearnkit.core.request import Rows\n"
        "from unlearnkit.tasks.classification import Classification\n"
        "from unlearnkit.testing import toy_case\n"
        "def make():\n"
        "    case = toy_case(Classification(3))\n"
        "    go = case.partition(Rows(range(10))).forget\n"
        "    return Case.from_parts(forget=(go.data.x[go.rows], go.y), task=case.task,\n"
        "        test=(case.test.x, case.test.y), fresh=case.fresh, recipe=case.recipe)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run("unlearn", TOY, "--forget", "class=1", "--method", "finetune", "--out", "first")
    monkeypatch.setitem(catalog.methods(), "gradient_ascent", Unmoved)
    words = ("--model", "first/original.safetensors", "--method", "auto", "--out", "x")
    said = run("unlearn", "parts_case:make", *words)
    assert said.code == 1
    assert "no candidate passed the fast audit" in said.err
    assert "the least bad is in 'x', not to be used" in said.err
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    assert not record["auto"]["passed"]
    assert any(n.startswith("auto: FAILED, do not use this model") for n in record["notes"])
    with Store(tmp_path / "unlearnkit.sqlite") as store:
        row = next(r for r in store.runs("unlearn") if r.method == "auto")
        assert row.status == "failed"


@pytest.mark.parametrize("words", [("--method", "ssd"), ()])
def test_a_cost_limit_without_auto_is_a_usage_error(run, made, words):
    said = run("unlearn", made, "--forget", "class=1", *words, "--max-cost", "1")
    assert said.code == 2
    assert "only --method auto has a cost limit" in said.err


def test_show_prints_the_table(run):
    said = run("show", "auto")
    assert "## class" in said.out
    assert "retrain" in said.out
    assert run("show", "auto", "--json").data["lines"][0]["id"] == "nothing"


def study(**changes):
    base = {"name": "x", "cases": [TOY], "requests": ["class=1"], "seeds": 1, "tier": "fast"}
    return make_study({**base, **changes})


def test_a_study_takes_it_with_its_budget_and_all_does_not_mean_it():
    (one,) = expand(study(methods=[{"auto": {"settings": {"budget": 3.0}}}]))
    assert (one.label, method_of(one)) == ("auto budget=3.0", Auto(budget=3.0))
    assert "auto" not in {r.method for r in expand(study(methods="all"))}


def test_a_study_keeps_which_method_was_chosen_and_a_failure_as_a_failure(tmp_path):
    words = yaml.safe_load("[{auto: {grid: {budget: [9.0, 0.01]}}}]")
    asked = study(methods=words)
    with Store(tmp_path / "s.sqlite") as store:
        run_unlearn(asked, store, Cache(tmp_path / "cache"))
        good, bad = (r for r in sorted(store.runs("study"), key=lambda r: -r.settings["budget"]))
        assert good.status == "done"
        chosen = store.facts(good.key)["chosen"]
        assert chosen in {"relabel_restart", "shrink_perturb", "warm_restart", "retrain"}
        assert bad.status == "failed"
        assert "no candidate of line shallow_class could run" in bad.error
