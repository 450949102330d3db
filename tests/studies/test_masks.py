"""Studies cross methods with masks, and no chosen mask runs without a random one beside it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.studies.conftest import small
from tests.studies.made import chosen, plan, study, values
from unlearnkit import catalog
from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError
from unlearnkit.localize.localizer import Localizer
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.planning.expand import expand
from unlearnkit.studies.planning.problem import StudyProblems, method_of
from unlearnkit.studies.spec import TrialStudy
from unlearnkit.studies.table.build_table import show, tabulate
from unlearnkit.studies.table.load_results import Result
from unlearnkit.studies.table.study_html import render

MASKS = ["weighted_grad:0.4", {"criterion": "grad", "budget": 0.4, "granularity": "parameter"}]


def masked(*masks, method="finetune", **more):
    return {method: {"masks": list(masks), **more}}


def labels(*methods, **changes):
    return [r.label for r in expand(small(methods=list(methods), seeds=1, **changes))]


def test_a_method_runs_under_each_mask_and_a_random_one_of_its_budget():
    assert labels("finetune", masked(*MASKS)) == [
        "finetune",
        "finetune @ weighted_grad 0.4",
        "finetune @ random 0.4",
        "finetune @ grad 0.4 parameter",
        "finetune @ random 0.4 parameter",
    ]


def test_masks_of_one_budget_share_their_random_one():
    runs = expand(small(methods=[masked("weighted_grad:0.4", "grad:0.4")], seeds=1))
    assert [(r.label, r.chance) for r in runs] == [
        ("finetune @ weighted_grad 0.4", "finetune @ random 0.4"),
        ("finetune @ random 0.4", ""),
        ("finetune @ grad 0.4", "finetune @ random 0.4"),
    ]


def test_a_random_mask_that_is_named_is_not_run_twice():
    assert labels(masked("random:0.4", "weighted_grad:0.4")) == [
        "finetune @ random 0.4",
        "finetune @ weighted_grad 0.4",
    ]
    assert labels(masked("random:0.4")) == ["finetune @ random 0.4"]


@pytest.mark.parametrize("method", ["salun", "del_localized"])
def test_a_method_that_finds_its_own_mask_runs_beside_a_random_one(method):
    own = catalog.method(method)
    runs = expand(small(methods=[method, {method: {"settings": {"mask.budget": 0.1}}}], seeds=1))
    assert [r.label for r in runs] == [
        method,
        f"{method} @ random {own.mask.budget:g} parameter",
        f"{method} mask.budget=0.1",
        f"{method} mask.budget=0.1 @ random 0.1 parameter",
    ]
    first, chance = method_of(runs[0]), method_of(runs[1])
    assert chance.mask.criterion == "random"
    assert chance.model_copy(update={"mask": first.mask}) == first
    assert runs[0].chance == runs[1].label
    assert runs[1].mask is None


def test_masks_go_with_presets_and_grids():
    entry = masked("grad:0.2", preset="paper", grid={"batch_norm": ["keep", "recalibrate"]})
    assert labels(entry) == [
        "finetune paper batch_norm=keep @ grad 0.2",
        "finetune paper batch_norm=keep @ random 0.2",
        "finetune paper batch_norm=recalibrate @ grad 0.2",
        "finetune paper batch_norm=recalibrate @ random 0.2",
    ]


def test_all_under_a_mask_leaves_out_what_a_mask_cannot_hold():
    fits = {r.method for r in expand(small(methods="all", seeds=1))}
    under = expand(small(methods=[masked("weighted_grad:0.4", method="all")], seeds=1))
    assert fits - {r.method for r in under} == {
        i for i in fits if catalog.methods()[i].info.replaces
    }
    assert "retrain" in fits
    assert all(r.mask is not None for r in under)


@pytest.mark.parametrize(
    ("methods", "kind", "told"),
    [
        ([masked("weighted_grad:0.4", method="retrain")], UnsupportedError, "a mask cannot hold"),
        ([masked("weighted_grad:0.4", method="auto")], UnsupportedError, "auto: chooses among"),
        ([masked("weighted_grid:0.4")], UnknownNameError, "Did you mean 'weighted_grad'"),
        ([masked("grad:0")], InputError, "budget: input should be greater than 0"),
        ([masked()], InputError, r"masks: give a list such as \[weighted_grad:0.3\], got \[\]"),
        ([{"finetune": {"masks": "grad"}}], InputError, "masks: give a list"),
        ([masked("grad", "grad:0.3")], InputError, "'finetune @ grad 0.3' is the same"),
        (
            [{"all": {"preset": "paper"}}],
            InputError,
            "all takes masks and without, and no settings",
        ),
        ([{"finetune": {"mask": ["grad"]}}], UnknownNameError, "Did you mean 'masks'"),
    ],
)
def test_masks_that_cannot_be_are_refused_before_anything_starts(methods, kind, told):
    with pytest.raises(kind, match=told):
        expand(small(methods=methods))


def test_the_mask_is_in_the_key_and_no_mask_leaves_it_as_it_was():
    plain, one, chance = expand(small(methods=["finetune", masked("grad:0.4")], seeds=1))
    (other, _) = expand(small(methods=[masked("grad:0.4:parameter")], seeds=1))
    assert len({plain.key, one.key, chance.key, other.key}) == 4
    subject = StudyProblems().of_run(plain)
    seeds = {"seed": 0, "original_seed": 0, "oracles": 1, "tier": "reference"}
    assert plain.key == subject.run_key(method_of(plain), **seeds)
    assert one.key == subject.run_key(method_of(one), **seeds, mask=Localizer.read("grad:0.4"))


def test_a_search_tries_a_method_without_a_random_mask_beside_it():
    whole = small(methods=["salun"], seeds=1)
    part = TrialStudy.model_construct(**dict(whole))
    assert [r.label for r in expand(part)] == ["salun"]


def test_what_a_mask_did_is_in_the_store_and_the_table(store, cache):
    s = small(methods=["finetune", masked("weighted_grad:0.4"), "salun"], seeds=3, oracles=3)
    outcome = run(s, store, cache)
    assert (outcome.done, outcome.failed) == (15, 0)
    runs = {(r.label, r.seed): r for r in expand(s)}
    facts = store.facts(runs["finetune @ weighted_grad 0.4", 0].key)
    assert json.loads(facts["mask"]) == Localizer.read("weighted_grad:0.4").model_dump(mode="json")
    assert 0.3 < float(facts["mask_share"]) <= 0.4
    own = store.facts(runs["salun", 0].key)
    assert "mask" not in own
    assert float(own["mask_share"]) == pytest.approx(0.5, abs=0.01)
    assert "mask_share" not in store.facts(runs["finetune", 0].key)
    table = show(s, store)
    found = {(x.first, x.second, x.metric) for x in table.blocks[0].chances}
    assert found == {
        (a, b, m)
        for a, b in (
            ("finetune @ weighted_grad 0.4", "finetune @ random 0.4"),
            ("salun", "salun @ random 0.5 parameter"),
        )
        for m in ("js_forget", "accuracy_test")
    }
    assert "Paired difference by js_forget, minus a random mask (same seeds)" in str(table)


def results(apart, seeds=5):
    """A masked method and its random one, so far apart from it by seed in what is left."""
    s = study(methods=["finetune"], requests=["class=3"], seeds=seeds)
    first, second = "finetune @ grad 0.3", "finetune @ random 0.3"
    found = []
    for p in plan(s, [first, second]):
        held = values(p)
        rng = np.random.default_rng([p.seed, 7])
        level = 0.2 + 0.01 * rng.random() + (apart[p.seed] if p.label == first else 0.0)
        held["js_forget", "unlearned"] = level
        chance = second if p.label == first else ""
        found.append(Result(replace(p, chance=chance), "done", values=held))
    return s, found


@pytest.mark.parametrize(
    ("apart", "word"),
    [
        ([-0.05, -0.04, -0.05, -0.06, -0.05], "beats it"),
        ([0.05, 0.04, 0.05, 0.06, 0.05], "loses to it"),
        ([0.05, -0.04, 0.05, -0.06, 0.0], "no difference shown"),
        ([-0.05, -0.05], "too few seeds"),
    ],
)
def test_a_mask_beats_chance_where_the_paired_interval_says_so(apart, word):
    s, found = results(apart, len(apart))
    table = tabulate(s, found, *chosen(["js_forget"]))
    got = next(x for x in table.blocks[0].chances if x.metric == "js_forget")
    assert got.word == word
    assert got.difference == pytest.approx(np.mean(apart), abs=1e-12)
    if len(apart) > 2:
        want = stats.ttest_1samp(apart, 0).confidence_interval(0.95)
        np.testing.assert_allclose([got.low, got.high], want, rtol=1e-9)
    assert word in str(table)
    assert "otherwise the result is no evidence" in str(table).lower().replace("\n", " ")
    page = render(table)
    assert word in page
    assert "Masks against random masks of the same size" in page


def test_a_study_without_masks_says_nothing_of_them():
    s = study()
    found = [Result(p, "done", values=values(p)) for p in plan(s)]
    table = tabulate(s, found, *chosen(["js_forget"]))
    assert "mask" not in str(table).lower()
    assert "random mask" not in render(table)
