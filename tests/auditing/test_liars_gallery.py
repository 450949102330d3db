"""Methods that look good on some numbers must be caught; a genuine oracle must not."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch

from tests.auditing.liars import (
    BlowUp,
    LastLayer,
    MaskLogit,
    NoOp,
    Reinitialise,
    Temperature,
    constant_margin,
)
from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.catalog import cases
from unlearnkit.core.errors import InputError
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.unlearning.run_method import run_method

ADVERSE = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED}


@pytest.fixture(scope="module")
def world():
    @cache
    def get(name):
        asked = cases()["digits"].ask(name)
        model = train_original(asked.case).model
        return asked, model, oracle(asked.case, asked.request, seeds=5)

    return get


@pytest.fixture(scope="module")
def judged(world):
    """Return the report of a method on a request of digits, audited once."""

    memory = AuditMemory()

    @cache
    def get(name, method, tier):
        asked, model, truth = world(name)
        done = run_method(model, asked.case, asked.request, method())
        oracles = truth if tier == "reference" else None
        return audit(done, oracle=oracles, tier=tier, memory=memory)

    return get


def verdicts(report):
    return {f.verdict for f in report.findings}


def test_doing_nothing_to_a_class_leaks_and_even_the_fast_tier_sees_it(judged):
    for tier in ("fast", "reference"):
        assert judged("class", NoOp, tier).verdict is Verdict.LEAKS


def test_doing_nothing_to_a_random_tenth_is_told_from_retraining_by_the_distance(judged):
    report = judged("random_tenth", NoOp, "reference")
    assert verdicts(report) & {Verdict.LEAKS, Verdict.DISTINGUISHABLE}
    assert report.row("js_forget").gap_closed == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["class", "random_tenth", "mislabelled_tenth"])
@pytest.mark.parametrize("method", [NoOp, LastLayer, Temperature], ids=lambda m: m.id)
def test_the_fast_tier_never_passes_anything(judged, name, method):
    report = judged(name, method, "fast")
    assert Verdict.MATCHES not in verdicts(report)


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_random_weights_are_damaged(judged, tier):
    assert Verdict.DAMAGED in verdicts(judged("random_tenth", Reinitialise, tier))


def test_ascent_that_blows_up_forgets_too_much_and_damages(judged):
    report = judged("random_tenth", BlowUp, "reference")
    assert report.verdict in {Verdict.LEAKS, Verdict.OVER_FORGOT}
    assert Verdict.DAMAGED in verdicts(report)


@pytest.mark.parametrize("method", [MaskLogit, LastLayer], ids=lambda m: m.id)
def test_a_change_of_the_last_layer_alone_never_matches(judged, method):
    report = judged("class", method, "reference")
    assert Verdict.MATCHES not in verdicts(report)
    assert any("only the last layer" in f.reason for f in report.findings)
    leaks = [f.rows for f in report.findings if f.verdict is Verdict.LEAKS]
    assert ("head_probe", "head_probe_untrained") in leaks


def test_softer_answers_change_neither_accuracy_nor_verdict_in_their_favour(judged):
    report = judged("random_tenth", Temperature, "reference")
    assert verdicts(report) & ADVERSE
    row = report.row("accuracy_test")
    assert row.estimate.value == row.original.value


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(-30.0, {Verdict.OVER_FORGOT}), (60.0, {Verdict.LEAKS}), (None, ADVERSE)],
    ids=["far below", "far above", "in the middle"],
)
def test_one_margin_for_all_forget_rows_is_caught(world, judged, margin, expected):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, NoOp())
    forget = asked.case.partition(asked.request).forget
    if margin is None:
        drawn = judged("random_tenth", NoOp, "reference").margins
        values = next(s.values for s in drawn if s.who == "unlearned" and s.split == "held_out")
        margin = float(torch.tensor(values).median())
    liar = copy.deepcopy(done.model)
    constant_margin(liar, forget.data.x[forget.rows], forget.y, margin)
    report = audit(replace(done, model=liar), oracle=truth)
    assert expected & verdicts(report)
    assert report.row("margin_spread_forget").judgement == "different"


def test_forgotten_rows_that_stand_out_leak_even_where_none_is_answered_rightly(world):
    asked, model, truth = world("class")
    done = run_method(model, asked.case, asked.request, NoOp())
    forget = asked.case.partition(asked.request).forget
    liar = copy.deepcopy(oracle(asked.case, asked.request, seeds=[77]).models[0])
    constant_margin(liar, forget.data.x[forget.rows], forget.y, -3.0)
    report = audit(replace(done, model=liar), oracle=truth)
    assert report.row("accuracy_forget").estimate.value == 0.0
    assert report.verdict is Verdict.LEAKS


@pytest.mark.parametrize("name", ["class", "random_tenth", "mislabelled_tenth"])
def test_a_genuine_oracle_is_not_accused(world, name):
    asked, model, truth = world(name)
    done = run_method(model, asked.case, asked.request, NoOp())
    stranger = oracle(asked.case, asked.request, seeds=[77]).models[0]
    report = audit(replace(done, model=stranger), oracle=truth)
    assert not verdicts(report) & ADVERSE, report.sentence


def test_an_oracle_with_only_its_last_layer_reset_is_refused(world):
    asked, model, truth = world("class")
    done = run_method(model, asked.case, asked.request, NoOp())
    fake = copy.deepcopy(model)
    fake[-1].reset_parameters()
    runs = (replace(truth.runs[0], model=fake), *truth.runs[1:])
    with pytest.raises(InputError, match="oracle 0: contaminated"):
        audit(done, oracle=Oracles(asked.case, asked.request, runs))


def test_one_oracle_repeated_is_refused(world):
    asked, model, truth = world("class")
    done = run_method(model, asked.case, asked.request, NoOp())
    with pytest.raises(InputError, match="0 and 1 are the same model"):
        audit(done, oracle=Oracles(asked.case, asked.request, (truth.runs[0],) * 5))


def test_oracles_of_another_request_are_refused(world):
    asked, model, _ = world("class")
    other = world("random_tenth")[2]
    done = run_method(model, asked.case, asked.request, NoOp())
    with pytest.raises(InputError, match="another request"):
        audit(done, oracle=other)


def test_the_report_says_that_a_random_tenth_has_almost_no_headroom(judged):
    report = judged("random_tenth", NoOp, "reference")
    assert any("almost no headroom" in w for w in report.warnings)
    assert not any("headroom" in w for w in judged("class", NoOp, "reference").warnings)
