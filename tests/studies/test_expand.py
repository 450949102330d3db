"""A study's runs: which there are, in which order, and by which keys they are known."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.studies.conftest import ROOT, small, words
from tests.studies.toys import HERE, toy
from unlearnkit import catalog
from unlearnkit.core import training
from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError
from unlearnkit.methods.ssd import SSD
from unlearnkit.studies.planning import problem
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.problem import StudyProblems, method_of


def keys(**changes):
    return [r.key for r in expand(small(**changes))]


def test_runs_come_by_case_request_seed_and_method():
    cases = [f"{HERE}:toy", f"{HERE}:other_rows"]
    found = expand(small(cases=cases, requests=["class=1", "rows=0:5"], seeds=[3, 1]))
    asked = itertools.product(cases, ["class=1", "rows=0:5"], [3, 1], ["finetune", "ssd"])
    assert [(r.case, r.request, r.seed, r.label) for r in found] == list(asked)


def test_full_trains_an_original_for_each_seed_and_reuse_one():
    assert [r.original_seed for r in expand(small(methods=["ssd"], seeds=3))] == [0, 1, 2]
    reuse = expand(small(methods=["ssd"], seeds=3, design="REUSE"))
    assert [r.original_seed for r in reuse] == [0, 0, 0]


def test_a_grid_is_every_combination_on_top_of_preset_and_settings():
    entry = {
        "settings": {"run.shrink": 2, "run": {"kind": "restart"}},
        "grid": {"run.lr": [1, 2], "run.share": [0.1, 0.2, 0.3]},
    }
    found = expand(small(methods=[{"relabel_restart": entry}], seeds=1))
    got = [(r.settings["run"]["lr"], r.settings["run"]["share"]) for r in found]
    assert got == list(itertools.product([1.0, 2.0], [0.1, 0.2, 0.3]))
    assert {r.settings["run"]["shrink"] for r in found} == {2.0}
    assert found[0].label == "relabel_restart run.shrink=2 run.kind=restart run.lr=1 run.share=0.1"
    base = catalog.method("relabel_restart").model_dump(mode="json")
    assert {k: v for k, v in found[0].settings.items() if k != "run"} == {
        k: v for k, v in base.items() if k != "run"
    }


def test_a_preset_gives_its_settings_and_a_label():
    (found,) = expand(small(methods=["finetune", {"finetune": {"preset": "paper"}}], seeds=1))[1:]
    want = catalog.method("finetune", "paper")
    assert (found.label, found.preset) == ("finetune paper", "paper")
    assert method_of(found) == want


@pytest.mark.parametrize(
    ("method", "preset", "path"),
    [("jit", "paper", ("guard", "floor")), ("neggrad_plus", "reference", ("cap",))],
)
def test_a_preset_without_a_limit_has_a_key_of_its_own(method, preset, path):
    without = {"preset": preset}
    limited = without | {"settings": {".".join(path): 1e9}}
    one, other = expand(small(methods=[{method: without}, {method: limited}], seeds=1))
    held = one.settings
    for name in path:
        held = held[name]
    assert math.isinf(held)
    assert one.key != other.key
    assert one.key == expand(small(methods=[{method: without}], seeds=1))[0].key
    assert method_of(one) == catalog.method(method, preset)


def test_all_is_every_method_that_serves_the_case():
    known = catalog.methods().items()
    serving = [i for i, m in known if "classification" in m.info.tasks and i != "rewind"]
    assert "checkpoints" in " ".join(catalog.methods()["rewind"].info.needs)  # the case keeps none
    assert len(serving) < len(catalog.methods())
    found = [r for r in expand(small(methods="all", seeds=1)) if r.label == r.method]
    assert [r.method for r in found] == serving


def test_a_method_for_another_task_is_left_out_of_all_and_refused_by_name(monkeypatch):
    monkeypatch.setattr(SSD, "info", replace(SSD.info, tasks=frozenset({"language"})))
    assert "ssd" not in [r.method for r in expand(small(methods="all", seeds=1))]
    with pytest.raises(UnsupportedError, match=r"ssd serves language, not classification"):
        expand(small())


def test_all_leaves_out_what_without_names():
    whole = [r.method for r in expand(small(methods="all", seeds=1))]
    found = [r.method for r in expand(small(methods=[{"all": {"without": ["ssd"]}}], seeds=1))]
    assert "ssd" in whole
    assert found == [m for m in whole if m != "ssd"]


def test_a_method_named_beside_all_stands_only_as_named():
    found = expand(small(methods=["all", {"ssd": {"settings": {"selection": 7}}}], seeds=1))
    assert [r.label for r in found if r.method == "ssd"] == ["ssd selection=7"]


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"methods": ["sdd"]}, UnknownNameError, r"no method 'sdd'. Did you mean 'ssd'\?"),
        (
            {"methods": [{"all": {"without": ["sdd"]}}]},
            UnknownNameError,
            r"no method 'sdd'. Did you mean 'ssd'\?",
        ),
        ({"methods": [{"ssd": {"preset": "papr"}}]}, UnknownNameError, r"Did you mean 'paper'\?"),
        (
            {"methods": [{"ssd": {"grid": {"selction": [1]}}}]},
            UnknownNameError,
            r"no hyper-parameter of ssd 'selction'. Did you mean 'selection'\?",
        ),
        ({"methods": [{"ssd": {"settings": {"selection": -1}}}]}, InputError, r"ssd: selection"),
        (
            {"methods": [{"ssd": {"settings": {"selection": 1}, "grid": {"selection": [2]}}}]},
            InputError,
            r"ssd: selection is in settings and in grid; keep one",
        ),
        ({"methods": ["ssd", "ssd"]}, InputError, r"'ssd' is the same as 'ssd'"),
        (
            {"methods": [{"ssd": {"grid": {"selection": [1, 1.0]}}}]},
            InputError,
            r"'ssd selection=1.0' is the same as 'ssd selection=1'",
        ),
        ({"cases": ["digitz"], "requests": ["class=3"]}, UnknownNameError, r"mean 'digits'\?"),
        ({"requests": ["class=9"]}, InputError, r"no row of class 9"),
        ({"device": "abacus"}, InputError, r"no such device"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(changes, kind, told):
    with pytest.raises(kind, match=told):
        expand(small(**changes))


def test_keys_are_the_same_in_another_process():
    code = (
        "from tests.studies.conftest import small\n"
        "from unlearnkit.studies.planning.expand import expand\n"
        "print(*[r.key for r in expand(small())])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"cases": [f"{HERE}:other_rows"]},
        {"cases": [f"{HERE}:other_recipe"]},
        {"cases": [f"{HERE}:other_test"]},
        {"cases": [f"{HERE}:other_network"]},
        {"requests": ["class=2"]},
        {"methods": ["finetune", {"ssd": {"settings": {"selection": 3}}}]},
        {"seeds": [2, 3]},
        {"oracles": 2},
        {"tier": "fast"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_each_input_changes_the_key(changes):
    ours, theirs = keys(), keys(**changes)
    assert ours[1] != theirs[1]
    assert ours[3] != theirs[3]


def test_the_seed_of_the_method_alone_changes_the_key():
    assert len(set(keys(design="REUSE", seeds=3))) == 6


def test_the_original_changes_the_key():
    full, reuse = keys(), keys(design="REUSE")
    assert full[:2] == reuse[:2]
    assert not set(full[2:]) & set(reuse[2:])


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"about": "another"},
        {"cases": [f"{HERE}:same_toy"]},
        {"requests": ["classes=1"]},
        {"requests": [{"rows": (toy().train.y == 1).nonzero()[:, 0].tolist()}]},
        {"seeds": [0, 1]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_names_are_no_inputs(changes):
    assert keys(**changes) == keys()


@pytest.mark.parametrize(("home", "name"), [(problem, "MEASURES"), (training, "NUMERICS")])
def test_new_arithmetic_is_a_new_key(monkeypatch, home, name):
    before = keys()
    monkeypatch.setattr(home, name, 999)
    assert not set(before) & set(keys())


OWN = """
from unlearnkit.core.method import Method

class Own(Method):
    id = "own"

    def apply(self, p, rt):
        return p.model{more}
"""


def test_the_source_of_a_method_from_elsewhere_is_an_input(tmp_path, monkeypatch):
    asked = StudyProblems().of_run(expand(small())[0])
    found = set()
    for name, more in {"a": "", "b": "", "c": ".eval()"}.items():
        (tmp_path / name).with_suffix(".py").write_text(OWN.format(more=more))
        spec = spec_from_file_location("own_method", (tmp_path / name).with_suffix(".py"))
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own_method", module)
        spec.loader.exec_module(module)
        found.add(asked.run_key(module.Own(), seed=0, original_seed=0, oracles=1, tier="fast"))
    assert len(found) == 2


def test_the_words_of_a_study_are_complete():
    assert words()["oracles"] == expand(small())[0].oracles
    assert expand(small(tier="fast"))[0].oracles == 0
