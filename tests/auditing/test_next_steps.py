"""What a report advises, and the summary that it shows."""

import pytest

from tests.report.report_samples import full, row
from unlearnkit.auditing.next_steps import STEPS, AuditFacts, next_steps, oracles_to_decide
from unlearnkit.auditing.summary import summary_rows
from unlearnkit.report.schema import Finding, Verdict

SPENT = full().cost.model_copy(update={"retrain_seconds": 10.0})
ROOM = row("js_forget", 0.5, 0.9, (0.1, 0.2, 0.3, 0.2, 0.1), unit="nats")


def facts(verdict, *, rows=(), ids=(), **more):
    found = (Finding(verdict=verdict, reason="so it is", rows=ids),)
    defaults = {"tier": "reference", "oracles": 5, "cost": SPENT}
    return AuditFacts(found, rows, **{**defaults, **more})


@pytest.mark.parametrize("tier", ["fast", "reference", "strong"])
@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_of_every_tier_has_a_next_step(verdict, tier):
    steps = next_steps(facts(verdict, tier=tier, oracles=0 if tier == "fast" else 5))
    assert 1 <= len(steps) <= 2
    assert all(s.action.endswith(".") for s in steps)


def test_every_verdict_but_the_undecided_one_is_in_the_table():
    assert set(STEPS) == set(Verdict) - {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(("oracles", "seconds"), [(1, 40.0), (3, 20.0), (4, 10.0)])
def test_too_few_retrained_models_are_completed_at_the_cost_of_the_missing(oracles, seconds):
    (step,) = next_steps(facts(Verdict.INCONCLUSIVE, oracles=oracles))
    assert "--oracles 5" in step.action
    assert step.seconds == pytest.approx(seconds)


def test_a_fast_audit_is_decided_by_five_retrained_models():
    (step,) = next_steps(facts(Verdict.INCONCLUSIVE, tier="fast", oracles=0))
    assert "--tier reference --oracles 5" in step.action


def test_a_cost_that_is_not_known_is_not_invented():
    spent = SPENT.model_copy(update={"retrain_seconds": None})
    (step,) = next_steps(facts(Verdict.INCONCLUSIVE, cost=spent, oracles=3))
    assert step.seconds is None


def test_more_retrained_models_are_advised_where_they_would_show_equivalence():
    near = row("accuracy_test", 0.908, 0.5, (0.9, 0.92, 0.91, 0.89, 0.93), unit="fraction")
    count = oracles_to_decide(near)
    assert count is not None
    (step,) = next_steps(facts(Verdict.INCONCLUSIVE, rows=(near, ROOM), ids=("accuracy_test",)))
    assert f"--oracles {max(count, 6)}" in step.action


def test_a_gap_beyond_the_margin_is_not_answered_with_more_retrained_models():
    far = row("accuracy_test", 0.5, 0.1, (0.9, 0.92, 0.91, 0.89, 0.93), unit="fraction")
    assert oracles_to_decide(far) is None
    (step,) = next_steps(facts(Verdict.INCONCLUSIVE, rows=(far, ROOM), ids=("accuracy_test",)))
    assert "--tier strong --ensemble-size 64" in step.action
    assert step.seconds == pytest.approx(3 * 64 * 10.0)


def test_a_summary_has_at_most_eight_lines_in_a_fixed_order():
    report = full()
    lines = summary_rows(report.rows, report.findings, report.cost)
    assert [x.metric for x in lines] == [
        "accuracy_forget", "accuracy_test", "js_forget", "margin_auc", "",
    ]  # fmt: skip
    many = [row(m, 0.5, 0.5) for m in (
        "accuracy_forget", "accuracy_retain", "accuracy_test", "js_forget", "divergence_forget",
        "margin_auc", "matched_margin_auc", "tow",
    )]  # fmt: skip
    strong = [row(m, 0.5, 0.5) for m in ("ulira_auc", "epsilon_exposed", "rmia_auc")]
    assert len(summary_rows(many, report.findings, report.cost, strong)) == 8


def test_a_summary_agrees_with_the_table_and_names_what_a_verdict_rests_on():
    report = full()
    lines = {x.metric: x for x in summary_rows(report.rows, report.findings, report.cost)}
    auc = report.row("margin_auc")
    assert (lines["margin_auc"].model, lines["margin_auc"].retrained) == (
        auc.estimate.value,
        auc.oracle.mean,
    )
    assert lines["margin_auc"].judgement == "over-forgot"
    assert lines["accuracy_forget"].judgement == "as retrained"
