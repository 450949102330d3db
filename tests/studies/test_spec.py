"""A study's file is checked before anything starts, in words that lead to the mistake."""

import re
from pathlib import Path

import pytest
import yaml

from tests.studies.conftest import ROOT, small, words
from unlearnkit.core.errors import InputError
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.spec import MethodEntry, load, make_study

TOY = "tests.studies.toys:toy"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 3}, r"no key of a study 'seed'. Did you mean 'seeds'\?"),
        ({"methds": ["ssd"]}, r"no key of a study 'methds'. Did you mean 'methods'\?"),
        (
            {"methods": [{"ssd": {"gird": {"selection": [1]}}}]},
            r"no key of method ssd in a study 'gird'. Did you mean 'grid'\?",
        ),
        (
            {"methods": {"ssd": {"method": "x"}}},
            r"no key of method ssd in a study 'method'",
        ),
        ({"methods": [{"ssd": {"grid": {"selection": []}}}]}, r"grid: selection has no value"),
        ({"methods": [{"ssd": 3}]}, r"methods: ssd: give preset, settings or grid, got 3"),
        ({"methods": [{"ssd": {}, "jit": {}}]}, r"methods: write an id, or an id with preset"),
        (
            {"methods": [{"all": {"preset": "paper"}}]},
            r"all takes masks and without, and no settings",
        ),
        ({"methods": [{"ssd": {"without": ["jit"]}}]}, r"ssd: only all takes without"),
        ({"methods": [{"all": {"without": 3}}]}, r"methods: give a list, got 3"),
        ({"methods": [{"all": {"without": ["jit", "jit"]}}]}, r"method 'jit' is named twice"),
        ({"methods": 3}, r"methods: give a list of ids, got 3"),
        ({"methods": []}, r"study: methods: "),
        ({"design": "HALF"}, r"study: design: input should be 'FULL' or 'REUSE', got 'HALF'"),
        ({"tier": "deep"}, r"study: tier: "),
        ({"oracles": 0}, r"study: oracles: "),
        ({"seeds": 0}, r"seeds: at least one, got 0"),
        ({"seeds": []}, r"seeds: from 0 to 999"),
        ({"seeds": [1000]}, r"seeds: from 0 to 999 .*, got 1000"),
        ({"seeds": [1, 1]}, r"seed 1 is named twice"),
        ({"seeds": "many"}, r"seeds: give a list, got 'many'"),
        ({"cases": [TOY, TOY]}, r"case 'tests.studies.toys:toy' is named twice"),
        ({"cases": []}, r"study: cases: "),
        ({"requests": []}, r"requests: give a list of some"),
        ({"requests": ["class=1", "class=1"]}, r"request 'class=1' is named twice"),
        ({"requests": {"digitz": ["class=1"]}}, r"no case of the study 'digitz'"),
        ({"requests": {}}, r"requests: none for case 'tests.studies.toys:toy'"),
        ({"name": "../x"}, r"study: name: "),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_nearest_right_one(changes, told):
    with pytest.raises(InputError, match=told):
        make_study(words(**changes))


def test_a_file_that_is_no_study_is_named(tmp_path):
    (tmp_path / "x.yaml").write_text("- 3\n")
    with pytest.raises(InputError, match=r"study: .*x.yaml' must hold keys such as cases"):
        load(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"study: cannot read .*none.yaml"):
        load(tmp_path / "none.yaml")


def test_a_file_gives_the_same_study_as_its_words(tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(words()))
    assert load(tmp_path / "x.yaml") == small()


def test_methods_may_be_written_as_a_list_or_as_a_mapping():
    entry = {"settings": {"selection": 5}}
    asked = (MethodEntry(method="finetune"), MethodEntry(method="ssd", settings={"selection": 5}))
    assert small(methods=["finetune", {"ssd": entry}]).methods == asked
    assert small(methods={"finetune": None, "ssd": entry}).methods == asked


def test_requests_may_differ_by_case_and_be_mappings():
    cases = [TOY, "tests.studies.toys:line"]
    told = {TOY: ["class=1", {"rows": [0, 5]}], cases[1]: ["rows=0:3"]}
    assert small(cases=cases, requests=told).requests == {
        TOY: ("class=1", "rows=0,5"),
        cases[1]: ("rows=0:3",),
    }


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "studies").glob("*.yaml")), ids=str)
def test_the_studies_that_come_along_can_be_read(path):
    assert load(Path(path)).about


def test_the_guides_example_is_a_study_that_can_be_laid_out():
    guide = (ROOT / "docs" / "studies.md").read_text("utf-8")
    example, masks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL))
    found = expand(make_study(example))
    masked = {r.label for r in expand(make_study({**example, **masks}))}
    assert {"finetune @ weighted_grad 0.3", "finetune @ random 0.3", "salun"} <= masked
    assert len([r for r in found if r.method == "ssd"]) == 2 * 5 * 3
    assert {r.label for r in found if r.method == "finetune"} == {"finetune paper"}
    assert {r.settings["unit"] for r in found if r.method == "ssd"} == {"batch"}
