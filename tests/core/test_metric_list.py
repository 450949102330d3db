"""The list of metrics: who may stand on it, and what a metric is for."""

import re
from pathlib import Path

import pytest

from unlearnkit.auditing.verdict_metrics import ATTACKS, KNOWN, OUTSIDE, UTILITY
from unlearnkit.catalog import metrics
from unlearnkit.core import metric as home
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.evidence import Split
from unlearnkit.core.metric import Goal, MetricRole, Score, metric
from unlearnkit.describe import find

PACKAGE = Path(home.__file__).parents[1]
AUDITS = [p for part in ("auditing", "studies") for p in (PACKAGE / part).rglob("*.py")]


@pytest.fixture
def listed(monkeypatch):
    """The list as it is, restored afterwards."""
    known = dict(metrics())
    monkeypatch.setattr(home, "METRICS", known)
    return known


def named(name, module, qualname=None):
    def fn(e, split=None):
        """A number."""
        return Score(0.0)

    fn.__name__, fn.__qualname__, fn.__module__ = name, qualname or name, module
    return fn


@pytest.mark.parametrize("module", ["mine.membership", "membership", "mine.other"])
def test_a_plug_in_cannot_replace_a_built_in_metric_whatever_its_file_is_called(listed, module):
    before = listed["margin_auc"]
    with pytest.raises(UnlearnkitError, match=r"margin_auc.* has the name of .*give it another"):
        metric(Goal.VALUE, low=0, high=1)(named("margin_auc", module))
    assert listed["margin_auc"] is before


def test_a_plug_in_cannot_replace_one_split_of_a_built_in_metric(listed):
    before = listed["accuracy_forget"]
    with pytest.raises(UnlearnkitError, match="accuracy_forget"):
        metric(Goal.VALUE, low=0, high=1, each=[Split.FORGET])(named("accuracy", "mine.behaviour"))
    assert listed["accuracy_forget"] is before


def test_two_functions_of_one_file_cannot_share_a_name(listed):
    module = listed["margin_auc"].fn.__module__
    with pytest.raises(UnlearnkitError, match="margin_auc"):
        metric(Goal.VALUE, low=0, high=1)(named("margin_auc", module, "Other.margin_auc"))


def test_a_module_that_is_loaded_again_puts_its_metrics_on_the_list_again(listed):
    again = named("margin_auc", listed["margin_auc"].fn.__module__)
    metric(Goal.VALUE, low=0, high=1)(again)
    assert listed["margin_auc"].fn is again


def test_a_metric_of_answers_must_say_which_way_is_better(listed):
    with pytest.raises(UnlearnkitError, match="role utility needs higher_is_better"):
        metric(Goal.ORACLE, low=0, high=1, role=MetricRole.UTILITY)(named("kept", "mine.kept"))
    assert "kept" not in listed


def test_verdicts_rest_on_metrics_of_the_role_that_they_are_taken_for():
    role = {m.id: m.role for m in metrics().values() if m.of_evidence}
    assert {role[i] for i in KNOWN} == {MetricRole.KNOWLEDGE}
    assert {role[i] for i in UTILITY} == {MetricRole.UTILITY}
    assert {role[i] for i in ATTACKS} == {MetricRole.ATTACK}
    assert {role[i] for i in OUTSIDE} == {MetricRole.DISTANCE}


def test_accuracies_are_better_high_and_errors_low():
    better = {m.id: m.higher_is_better for m in metrics().values()}
    assert {better[i] for i in better if i in {*KNOWN, *UTILITY}} == {True, False}
    assert better["accuracy_test"] is better["accuracy_forget"] is True
    assert better["error_test"] is better["error_forget"] is False


@pytest.mark.parametrize("name", ["ulira_auc", "ensemble_error_test", "klom_forget", "cost_ratio"])
def test_numbers_of_strong_audits_and_costs_can_be_looked_up(name):
    facts, page = find(name)
    assert (facts["kind"], facts["id"]) == ("metric", name)
    assert page.startswith(f"# {name}")


@pytest.mark.parametrize("path", sorted(AUDITS), ids=lambda p: p.name)
def test_what_a_metric_is_for_is_not_read_from_its_id(path):
    guess = re.compile(r'startswith\("(error|accuracy|margin)|"(_forget|error|accuracy|auc)" in ')
    assert not guess.search(path.read_text("utf-8"))
