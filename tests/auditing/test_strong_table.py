"""The strong table and its verdicts, on signals whose laws are known."""

import math

import pytest
import torch
from scipy import stats

from tests.auditing.planted import SECTIONS, everything, planted, seated
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.results_table import LEVEL, strong_table
from unlearnkit.auditing.verdicts_strong import (
    ATTACKS,
    KEPT_ATTACKS,
    KNOWN,
    UTILITY,
    strong_findings,
    strong_limits,
    strong_remarks,
)
from unlearnkit.catalog import metrics
from unlearnkit.core import metric as listing
from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.errors import InputError
from unlearnkit.core.metric import Goal, MetricRole, Score, declare
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Finding, Verdict

ADVERSE = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DISTINGUISHABLE, Verdict.DAMAGED}


def judged(signals, *, whole=False):
    """The table, or only what verdicts rest on; and the verdicts."""
    table = strong_table(signals, Runtime(), judged_only=not whole)
    return table, {f.verdict for f in strong_findings(table)}


@pytest.fixture(scope="module")
def null():
    return judged(planted(sections=dict.fromkeys(SECTIONS, 150)), whole=True)


def test_a_method_that_equals_retraining_matches_it(null):
    table, verdicts = null
    assert verdicts == {Verdict.MATCHES}
    assert (table.familiar, table.strange, table.design) == (0, 0, "FULL")
    assert table.row("ulira_auc").estimate.value == pytest.approx(0.5, abs=0.05)
    assert table.row("epsilon_worst").estimate.value == 0.0
    assert table.row("forgetting_quality").estimate.value == 1.0


@pytest.mark.parametrize(
    ("shift", "expected", "other"),
    [(3.0, Verdict.LEAKS, Verdict.OVER_FORGOT), (-3.0, Verdict.OVER_FORGOT, Verdict.LEAKS)],
)
def test_the_sign_of_a_shift_decides_between_leaking_and_over_forgetting(shift, expected, other):
    table, verdicts = judged(planted(shift=shift), whole=True)
    assert expected in verdicts
    assert other not in verdicts
    exposed = [e for e in table.exposure if e.epsilon]
    assert len(exposed) == 20
    assert all(math.copysign(1, e.shift) == math.copysign(1, shift) for e in exposed)
    value = table.row("ensemble_margin_shift").estimate
    assert value.low < shift < value.high


def test_small_shifts_up_and_down_are_told_without_a_single_exposed_row():
    signals = planted()
    margins, errors = everything(signals, "unlearned")
    margins[:, :20] += 0.6 * (-1.0) ** torch.arange(20)
    table, verdicts = judged(seated(signals, margins, errors))
    assert verdicts & ADVERSE == {Verdict.DISTINGUISHABLE}
    assert table.row("permutation_p").judgement == "different"
    assert table.row("epsilon_exposed").estimate.value == 0.0


def test_an_unlearned_law_without_spread_is_caught_whatever_its_centre():
    signals = planted(spread=0.01)
    assert judged(signals)[1] & ADVERSE


def test_exposed_rows_carry_their_number_in_the_training_set_and_stand_first():
    signals = planted()
    margins, _ = everything(signals, "unlearned")
    margins[:, 7] += 8.0
    columns = {**signals.columns, "forget": signals.columns["forget"] + 100}
    table = strong_table(
        seated(
            MarginMatrix(signals.margins, signals.codes, signals.errors, signals.members, columns),
            margins,
        ),
        Runtime(),
    )
    assert [e.row for e in table.exposure if e.epsilon] == [107]
    assert table.exposure[0].row == 107
    assert table.exposure[0].accuracy > 0.95
    assert {s.split for s in table.laws} >= {"row-107"}
    assert {s.who for s in table.laws} == {"original", "unlearned", "oracle"}


def test_lost_answers_are_damage():
    signals = planted()
    margins, errors = everything(signals, "unlearned")
    errors[:, signals.place("test")] = (torch.arange(20) < 10).float()
    table, verdicts = judged(seated(signals, margins, errors))
    assert Verdict.DAMAGED in verdicts
    assert table.row("ensemble_accuracy_test").estimate.value == 0.5


def test_retained_rows_that_grew_more_familiar_are_told():
    signals = planted(memory=2.0)
    margins, errors = everything(signals, "unlearned")
    margins[:, signals.place("retain")] += 2.0
    found = strong_findings(judged(seated(signals, margins, errors))[0])
    assert any("exposes retained rows more" in f.reason for f in found)


def test_errors_of_another_kind_than_right_or_wrong_are_compared_as_errors():
    signals = planted()
    errors = signals.margins.abs().float()
    table = strong_table(
        MarginMatrix(signals.margins, signals.codes, errors, signals.members, signals.columns),
        Runtime(),
        judged_only=True,
    )
    row = table.row("ensemble_error_test")
    assert row.unit == "as targets"
    want = everything(signals, "unlearned")[0][:, signals.place("test")].abs().mean()
    assert row.estimate.value == pytest.approx(float(want), rel=1e-6)
    assert table.row("ensemble_accuracy_test") is None


def test_gaps_of_rates_are_those_of_a_two_sample_t_test(null):
    signals = planted(sections=dict.fromkeys(SECTIONS, 150))
    a, b = (
        1 - signals.of(who, "test", "errors").double().mean(1) for who in ("unlearned", "floor")
    )
    want = stats.ttest_ind(a.numpy(), b.numpy()).confidence_interval(0.95)
    row = null[0].row("ensemble_accuracy_test")
    assert (row.gap_low, row.gap_high) == pytest.approx((want.low, want.high))
    assert row.oracle.sd == pytest.approx(float(b.std()))


def test_copies_of_one_retrained_model_never_pass_and_are_named():
    signals = planted()
    margins, errors = everything(signals, "floor")
    table, verdicts = judged(seated(signals, margins[:1].repeat(64, 1), errors[:1].repeat(64, 1)))
    assert (table.design, table.distinct) == ("REUSE", 1)
    assert verdicts == {Verdict.INCONCLUSIVE}
    assert any("only 1 of 64 unlearned models differ" in t for t in table.warnings)
    assert any("exactly as a retrained one" in t for t in table.warnings)
    assert table.row("permutation_p").estimate.value is None


def test_originals_in_the_seat_are_called_unchanged():
    signals = planted()
    table, verdicts = judged(seated(signals, *everything(signals, "original")))
    assert "64 unlearned models answer exactly as an original: nothing changed" in table.warnings
    assert Verdict.LEAKS in verdicts


def test_a_forget_set_without_any_memory_cannot_rank_methods():
    table, verdicts = judged(planted(memory=0.0))
    assert table.originals_indistinguishable
    assert verdicts == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(
    ("models", "undefined"),
    [
        (4, {"ulira_auc", "klom_forget", "epsilon_worst", "forgetting_quality"}),
        (16, {"ulira_auc", "klom_forget"}),
        (32, {"ulira_auc"}),
    ],
)
def test_too_few_models_give_no_number_but_the_reason_and_never_a_pass(models, undefined):
    table, verdicts = judged(planted(models=models, sections=SMALL), whole=True)
    for metric in undefined:
        row = table.row(metric)
        assert row.estimate.value is None
        assert "least" in row.estimate.note or "fewer than" in row.estimate.note
    assert Verdict.MATCHES not in verdicts
    assert Verdict.INCONCLUSIVE in verdicts
    assert any("64" in text for text in strong_limits(table))


def test_without_held_out_rows_there_is_no_attack_row_and_no_pass():
    whole = planted()
    columns = {k: whole.columns[k] for k in ("forget", "retain")}
    keep = slice(0, 40)
    signals = MarginMatrix(
        whole.margins[:, keep], whole.codes[:, keep], whole.errors[:, keep], whole.members, columns
    )
    table, verdicts = judged(signals)
    assert table.row("rmia_auc") is None
    assert verdicts == {Verdict.INCONCLUSIVE}
    assert "no never-seen rows" in strong_findings(table)[0].reason
    said = strong_remarks(table)
    assert not any("Membership attack" in text for text in said)
    assert "Records that a single-record attack exposes: 0 of 20." in said


def test_margins_that_are_not_finite_are_refused():
    signals = planted()
    margins = signals.margins.clone()
    margins[0, 0] = math.nan
    with pytest.raises(InputError, match="1 of 25600 margins are not finite"):
        MarginMatrix(margins, signals.codes, signals.errors, signals.members, signals.columns)


def test_what_the_model_at_hand_shows_is_part_of_the_verdict(null):
    own = Finding(verdict=Verdict.LEAKS, reason="made", rows=("margin_auc",))
    found = strong_findings(null[0], [own])
    assert (found[0].verdict, found[0].reason) == (Verdict.LEAKS, "this model: made")
    assert Verdict.MATCHES not in {f.verdict for f in found}


def test_the_remarks_say_attack_power_exposed_records_and_the_reservation(null):
    table = null[0]
    (found,) = strong_findings(table)
    assert found.reason.startswith("attacks do not tell 64 unlearned from as many retrained models")
    text = " ".join(strong_remarks(table))
    assert text.startswith("Membership attack on the forget set: AUC ")
    assert "; 0.5 = no leak." in text
    assert f"{table.detectable:.2f} standard deviations of retrained models." in text
    assert "Records that a single-record attack exposes: 0 of 150." in text
    assert text.endswith("This is evidence, not proof of deletion.")


def test_the_same_signals_give_the_same_table():
    signals = planted(models=16, sections=SMALL)
    assert strong_table(signals, Runtime()) == strong_table(signals, Runtime())


def test_every_row_of_the_table_is_a_metric_of_the_strong_tier(null):
    strong = {i for i, m in metrics().items() if m.tier == AuditTier.STRONG}
    assert {r.metric for r in null[0].rows} <= strong


@pytest.mark.slow
@pytest.mark.parametrize("draws", [12, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_a_second_set_of_retrained_models_is_accused_no_more_often_than_said(draws):
    found = []
    for seed in range(draws):
        table = strong_table(planted(seed, sections=SMALL), Runtime(seed=seed), judged_only=True)
        found.append((table, {f.verdict for f in strong_findings(table)}))
    alarms = {
        "permutation": sum(t.row("permutation_p").estimate.value < LEVEL for t, _ in found),
        "exposure": sum(t.familiar + t.strange > 0 for t, _ in found),
        "any": sum(bool(v & ADVERSE) for _, v in found),
    }
    for name, level in {"permutation": LEVEL, "exposure": 0.05, "any": 0.06}.items():
        # The count that is exceeded with a chance of 1 in 1000 if the rate is the nominal one.
        assert alarms[name] <= stats.binom.ppf(0.999, draws, level), alarms
    p = [t.row("permutation_p").estimate.value for t, _ in found]
    assert stats.kstest(p, "uniform").pvalue > 0.01


SMALL = dict.fromkeys(SECTIONS, 12)


@pytest.fixture
def plugin(monkeypatch):
    """A metric of ensembles from outside this package, on the list for one test."""
    known = metrics()
    monkeypatch.setattr(listing, "METRICS", listing.METRICS.copy())
    monkeypatch.setattr("unlearnkit.auditing.strong.results_table.METRICS", listing.METRICS)

    def mean_margin(scores, who):
        return Score(math.nan, scores.answers(who, "forget").mean(1))

    declare(
        "mean_margin",
        Goal.ORACLE,
        doc="Mean margin of forget rows, over models.",
        low=-math.inf,
        high=math.inf,
        unit="log-odds",
        tier=AuditTier.STRONG,
        section=ReportSection.DISTANCE,
        family="mine",
        fn=mean_margin,
        margin=0.5,
        role=MetricRole.DISTANCE,
    )
    for home in ("results_table", "table_rows"):
        monkeypatch.setattr(
            f"unlearnkit.auditing.strong.{home}.metrics",
            lambda: {**known, "mean_margin": listing.METRICS["mean_margin"]},
        )


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("shift", "judgement"), [(0.0, "equivalent"), (3.0, "different")])
def test_a_plug_in_adds_a_row_to_the_strong_table(shift, judgement):
    signals = planted(shift=shift, models=32, sections=SMALL)
    row = judged(signals, whole=True)[0].row("mean_margin")
    want = signals.of("unlearned", "forget").mean() - signals.of("floor", "forget").mean()
    assert row.gap == pytest.approx(float(want), rel=1e-6)
    assert (row.judgement, row.margin, row.section) == (judgement, 0.5, ReportSection.DISTANCE)


def test_a_number_of_ensembles_is_not_computed_of_one_model():
    with pytest.raises(InputError, match="ulira_auc: it is no function of one model's evidence"):
        metrics()["ulira_auc"](None)


def test_verdicts_rest_on_numbers_of_the_role_that_they_are_taken_for():
    role = {m.id: m.role for m in metrics().values() if m.tier == AuditTier.STRONG}
    assert {i for i, r in role.items() if r is MetricRole.KNOWLEDGE} == set(KNOWN)
    assert {i for i, r in role.items() if r is MetricRole.UTILITY} == set(UTILITY)
    assert {role[i] for i in (*ATTACKS, *KEPT_ATTACKS)} == {MetricRole.ATTACK}
