"""The decision table: each circumstance falls on its line, and orders are those of the results."""

import pytest

from experiments.memory_table import CANDIDATES, LINES, SHORT, derived, kept_lines, ranked
from unlearnkit import catalog
from unlearnkit.auto.case_profile import CaseProfile
from unlearnkit.auto.decision_table import Rule, load_decision_table
from unlearnkit.core.method import Need

ALL = frozenset(Need)


def line(kind="random", *, has=ALL, task="classification", share=0.1, layers=3, norm=False):
    seen = CaseProfile(task, frozenset(has), kind, share, None, layers, norm)
    return next(x.id for x in load_decision_table() if seen.fits(x.when))


@pytest.mark.parametrize(
    ("want", "said"),
    [
        ("nothing", {"kind": "class", "has": {Need.FRESH}, "share": None}),
        ("no_retained", {"kind": "unknown", "has": {Need.FORGET, Need.FRESH}, "share": None}),
        ("class", {"kind": "class"}),
        ("class", {"kind": "class", "share": 0.5}),
        ("class_batch_norm", {"kind": "class", "norm": True}),
        ("atypical", {"kind": "atypical", "norm": True}),
        ("rows_batch_norm", {"kind": "group", "norm": True}),
        ("many", {"kind": "random", "share": 0.5, "norm": True}),
        ("atypical", {"kind": "atypical"}),
        ("atypical", {"kind": "atypical", "task": "regression"}),
        ("many", {"kind": "random", "share": 0.5}),
        ("numbers", {"kind": "group", "task": "regression"}),
        ("rows", {"kind": "random"}),
        ("rows", {"kind": "group"}),
        ("rows", {"kind": "random", "share": 0.001}),
        ("rows", {"kind": "random", "task": "multilabel"}),
        ("shallow", {"kind": "random", "layers": 2}),
        ("shallow", {"kind": "atypical", "layers": 1}),
        ("shallow", {"kind": "random", "layers": 2, "share": 0.5}),
        ("shallow_class", {"kind": "class", "layers": 2}),
        ("shallow_class", {"kind": "class", "layers": 2, "norm": True}),
        ("numbers", {"kind": "random", "layers": 2, "task": "regression"}),
        ("no_factory", {"kind": "class", "has": ALL - {Need.FRESH}}),
        ("no_retained", {"has": {Need.FORGET}, "share": None, "layers": 2}),
    ],
)
def test_each_circumstance_falls_on_its_line(want, said):
    assert line(**said) == want


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "language"])
@pytest.mark.parametrize("kind", ["class", "atypical", "group", "random"])
@pytest.mark.parametrize(("share", "layers"), [(0.001, 1), (0.29, 9), (0.3, 9), (0.99, 2)])
@pytest.mark.parametrize("norm", [False, True])
def test_whoever_has_forget_and_retained_rows_finds_a_line_with_retraining_last(
    task, kind, share, layers, norm
):
    seen = CaseProfile(task, ALL, kind, share, None, layers, norm)
    found = next(x for x in load_decision_table() if seen.fits(x.when))
    assert found.candidates[-1].method == "retrain"
    assert found.candidates[-1].exact


@pytest.mark.parametrize("one", load_decision_table(), ids=lambda x: x.id)
def test_every_candidate_is_built_in_and_has_settings_that_its_method_takes(one):
    for c in one.candidates:
        assert catalog.method(c.method, None, **c.settings).id == c.method
        assert catalog.methods()[c.method].__module__.startswith("unlearnkit.methods.")


def test_a_misspelt_method_is_told_at_loading_with_the_nearest(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("- {id: x, because: y, evidence: z, candidates: [{method: scrubb, cost: 1}]}\n")
    with pytest.warns(UserWarning, match=r"line 'x' names the method 'scrubb'.*mean 'scrub'"):
        assert load_decision_table(path)[0].candidates[0].method == "scrubb"


def test_lines_have_different_names():
    assert len({x.id for x in load_decision_table()}) == len(load_decision_table())


@pytest.mark.parametrize("one", load_decision_table(), ids=lambda x: x.id)
def test_the_shipped_candidates_settings_and_costs_are_those_that_the_kept_results_give(one):
    assert (one.id in LINES) == ("memory_table" in one.evidence)
    if one.id in LINES:
        assert derived(one, kept_lines()) == one


def line_of(memory, test, **changes):
    """Return the results of one candidate on the ground of a line, and of a short retraining."""
    row = {"ground": "diabetes, group", "errors": False, "retrained_test": 0.97, "cost": 0.18}
    row |= {"original": {"auc": 0.9}, "memory": {"auc": memory}, "test": test}
    return {**row, **changes}


def rank_of(memory, test, scratch=0.965, **changes):
    rows = [line_of(0.5, scratch, candidate=SHORT)]
    rows += [line_of(memory, test, candidate="ssd", **changes)]
    (found,) = ranked("numbers", rows)
    return found


@pytest.mark.parametrize(
    ("memory", "test", "changes", "why"),
    [
        (0.55, 0.968, {}, ""),
        (0.64, 0.968, {}, ""),
        (0.66, 0.968, {}, "memory shows"),
        (0.5, 0.9599, {"scratch": 0.9701}, "loses more than a point"),
        (0.5, 0.9599, {"scratch": 0.9501}, ""),
        (0.5, 0.9599, {"scratch": 0.9651}, "answers no better than a training from scratch"),
        (0.5, 0.9659, {}, "answers no better than a training from scratch"),
        (0.5, 0.968, {"cost": 0.21}, "costs more than a fifth"),
        (0.6, 0.968, {"original": {"auc": 0.58}}, "remembers more than the original"),
    ],
)
def test_a_candidate_is_out_for_memory_utility_or_cost(memory, test, changes, why):
    assert rank_of(memory, test, **changes).why_not == why


def test_candidates_are_ordered_by_memory_and_then_by_test_accuracy():
    few = list(CANDIDATES)[1:5]
    numbers = zip(few, (0.60, 0.55, 0.50, 0.64), (0.970, 0.966, 0.969, 0.972), strict=True)
    rows = [line_of(0.5, 0.965, candidate=SHORT)]
    rows += [line_of(m, t, candidate=c) for c, m, t in numbers]
    assert [r.candidate for r in ranked("numbers", rows)] == [few[2], few[1], few[0], few[3]]


def test_for_numbers_less_error_is_better():
    worse = {"errors": True, "retrained_test": 0.965}
    rows = [line_of(0.5, 0.965, candidate=SHORT, **worse)]
    rows += [line_of(0.5, 0.968, candidate="ssd", **worse)]
    (found,) = ranked("numbers", rows)
    assert found.gain == pytest.approx(-0.003)


def test_a_line_says_a_candidate_as_a_user_would_write_it():
    one = Rule.model_validate(
        {
            "id": "x",
            "because": "y",
            "evidence": "z",
            "candidates": [{"method": "m", "settings": {"run": {"lr": 2.0}, "a": 1}, "cost": 1}],
        }
    )
    assert one.candidates[0].words() == "m run.lr=2.0 a=1"
