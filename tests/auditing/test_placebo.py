"""Memory, signature and likeness: the placebo arm, its comparisons and its verdicts."""

from typing import ClassVar

import pytest
import torch
from scipy import stats

from tests.auditing.liars import NoOp
from tests.auditing.planted import SECTIONS, planted
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.permutation import permutation_test
from unlearnkit.attacks.ulira import ulira
from unlearnkit.auditing.memory_and_likeness import strong_answers
from unlearnkit.auditing.recipe_marks import under_recipe
from unlearnkit.auditing.strong.cost_plan import plan
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO, reads_request
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.train_ensembles import FLOOR, collect_margins, subject_of
from unlearnkit.auditing.verdicts_strong import strong_findings, strong_limits
from unlearnkit.cache import Cache
from unlearnkit.catalog import method
from unlearnkit.core.case import Case
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.oracles import oracle
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import Verdict
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

TOY = toy_case(Classification(3))
GO = Rows(range(9))
WIDE = dict.fromkeys(SECTIONS, 150)


def arms(unlearned, placebo, *, models=64, spread=1.0, sections=SECTIONS, seed=0, memory=2.0):
    """Planted margins; both arms shifted on the forget set, in deviations of retrained models."""
    options = {"models": models, "sections": sections, "memory": memory}
    base = planted(seed, shift=unlearned, spread=spread, **options)
    other = planted(seed + 10_000, shift=placebo, spread=spread, **options)
    # The same examples: the other draw's noise about this draw's centre and width.
    centre, wide = (planted_law(seed, sections), planted_law(seed + 10_000, sections))
    rows = [i for i, m in enumerate(other.members) if m.who == "unlearned"]
    margins = (other.margins[rows] - wide[0]) / wide[1] * centre[1] + centre[0]
    return with_placebo(base, margins)


def planted_law(seed, sections):
    """Centre and width of each example of ``planted``."""
    rng = torch.Generator().manual_seed(seed)
    width = sum(sections.values())
    centre = 3.0 + torch.randn(width, generator=rng, dtype=torch.float64)
    return centre, 0.5 + torch.rand(width, generator=rng, dtype=torch.float64)


def with_placebo(base, margins):
    """The signals with a placebo arm of these margins ``(m, E)``."""
    return MarginMatrix(
        torch.cat([base.margins, margins]),
        torch.cat([base.codes, torch.ones(margins.shape, dtype=torch.uint8)]),
        torch.cat([base.errors, (margins < 0).float()]),
        (*base.members, *(ModelId(PLACEBO, FLOOR + i) for i in range(len(margins)))),
        base.columns,
    )


def judged(signals, **options):
    table = strong_table(signals, Runtime(), judged_only=True, **options)
    found = strong_findings(table)
    return table, {f.verdict for f in found}, strong_answers(found, table)


def test_a_method_that_equals_retraining_gets_both_statements():
    table, verdicts, answers = judged(arms(0.0, 0.0, sections=WIDE, seed=1))
    assert verdicts == {Verdict.MATCHES, Verdict.MEMORY_GONE}
    assert strong_findings(table)[0].verdict is Verdict.MATCHES
    assert [a.answer for a in answers] == ["yes", "yes"]


def test_under_another_recipe_neither_statement_holds():
    table, *_ = judged(arms(0.0, 0.0, sections=WIDE, seed=1))
    other = RecipeCheck(outcome="mismatch", sentence="the models differ")
    found = strong_findings(table, recipe=other)
    assert {f.verdict for f in found} == {Verdict.INCONCLUSIVE}
    assert any("the models differ" in f.reason for f in found)
    answers = under_recipe(strong_answers(found, table), other)
    assert "yes" not in {a.answer for a in answers}


def test_a_signature_without_memory_is_distinguishable_and_memory_is_gone():
    table, verdicts, answers = judged(arms(-3.0, -3.0, sections=WIDE), reads_request=False)
    assert {Verdict.DISTINGUISHABLE, Verdict.MEMORY_GONE} <= verdicts
    assert not verdicts & {Verdict.LEAKS, Verdict.OVER_FORGOT}
    assert [a.answer for a in answers] == ["yes", "no"]
    assert table.arm("signature").shift.value == pytest.approx(-3.0, abs=0.2)
    assert "signature of the algorithm" in strong_findings(table)[0].reason


def test_the_report_says_whether_the_signature_may_hold_what_the_request_leaves():
    reading, ignoring = (
        judged(arms(-3.0, -3.0), reads_request=reads)[0].placebo for reads in (True, False)
    )
    assert "cannot run without a request" in reading
    assert "the request leaves no signature" in ignoring


@pytest.mark.parametrize(
    ("unlearned", "placebo", "expected"),
    [(1.5, 0.0, Verdict.LEAKS), (-1.0, -3.0, Verdict.LEAKS), (-3.0, 0.0, Verdict.OVER_FORGOT)],
)
def test_memory_is_unlearned_against_placebo_whatever_both_are_against_retrained(
    unlearned, placebo, expected
):
    table, verdicts, answers = judged(arms(unlearned, placebo), reads_request=False)
    assert verdicts & {Verdict.LEAKS, Verdict.OVER_FORGOT} == {expected}
    assert not verdicts & {Verdict.DISTINGUISHABLE, Verdict.MEMORY_GONE}
    assert answers[0].answer == "no"
    assert table.arm("memory").shift.value == pytest.approx(unlearned - placebo, abs=0.25)


def test_likeness_to_retraining_does_not_excuse_memory():
    table, verdicts, _ = judged(arms(0.0, -3.0))
    assert Verdict.LEAKS in verdicts
    assert Verdict.MATCHES not in verdicts
    assert table.row("permutation_p").estimate.value > 0.01


def test_the_comparisons_are_those_of_the_published_estimators():
    signals = arms(1.0, -0.5)
    table = strong_table(signals, Runtime())
    sides = {
        "memory": ("unlearned", PLACEBO),
        "signature": (PLACEBO, "oracle"),
        "likeness": ("unlearned", "oracle"),
    }
    assert [a.name for a in table.arms] == list(sides)
    for name, pair in sides.items():
        arm, (ours, theirs) = table.arm(name), (signals.of(w, "forget") for w in pair)
        assert arm.auc.value == pytest.approx(ulira(ours, theirs).auc, abs=1e-4)
        assert arm.klom == pytest.approx(klom(ours, theirs).median)
        unit = theirs.std(0)
        assert arm.shift.value == pytest.approx(float(((ours - theirs.mean(0)) / unit).mean()))
        rng = Runtime().rng(f"strong/permutation{'' if name == 'likeness' else '/' + name}")
        assert arm.p == permutation_test(ours, theirs, rng=rng).p
    for e in table.exposure:
        assert None not in (e.epsilon, e.memory.epsilon, e.signature.epsilon)
    bounds = [e.memory.epsilon for e in table.exposure]
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("models", [4, 16, 32])
def test_too_few_models_give_no_statement_on_memory_but_the_reason(models):
    table, verdicts, answers = judged(arms(0.0, 0.0, models=models))
    memory = table.arm("memory")
    assert memory.auc.value is None
    assert "fewer than 64" in memory.note
    assert Verdict.MEMORY_GONE not in verdicts
    assert answers[0].answer == "not shown"
    assert "at least 64" in answers[0].sentence


def test_a_forget_set_that_originals_did_not_memorise_gives_no_statement():
    _, verdicts, answers = judged(arms(0.0, 0.0, memory=0.0))
    assert Verdict.MEMORY_GONE not in verdicts
    assert "originals" in answers[0].sentence


def test_a_method_that_ignores_its_model_is_its_own_placebo_bit_for_bit(tmp_path):
    short = method("shrink_perturb", renew=1.0)
    signals = collect_margins(subject_of(TOY, GO, short, Runtime(), Cache(tmp_path)), 8)
    assert torch.equal(signals.of("unlearned", "test"), signals.of(PLACEBO, "test"))
    assert not torch.equal(signals.of("original", "test"), signals.of("floor", "test"))
    ours, placebo = (signals.of(who, "forget") for who in ("unlearned", PLACEBO))
    found = ulira(ours, placebo, least=8)
    assert (found.auc, found.accuracy) == (0.5, 0.5)
    assert permutation_test(ours, placebo, rng=Runtime().rng("p")).p == 1.0
    table = strong_table(signals, Runtime(), reads_request=False)
    assert table.arm("memory").shift.value == 0.0
    assert "8 unlearned models are their placebo models, bit for bit" in table.placebo


def test_placebo_models_are_made_from_the_second_set_of_retrained_models(tmp_path):
    subject = subject_of(TOY, GO, method("scrub"), Runtime(), Cache(tmp_path))
    found = collect_margins(subject, 4).of(PLACEBO, "forget")[2]
    floor = oracle(TOY, GO, seeds=[FLOOR + 2], cache=Cache(tmp_path)).models[0]
    model = run_method(floor, TOY, GO, "scrub", Runtime(seed=2)).model
    view = TOY.partition(GO).forget
    with torch.no_grad():
        out = model(view.data.x[view.rows]).double()
    want = out.gather(1, view.y[:, None])[:, 0]
    others = out.scatter(1, view.y[:, None], -torch.inf).logsumexp(1)
    torch.testing.assert_close(found, want - others)


def test_without_a_request_a_method_that_reads_none_makes_the_same_model(tmp_path):
    for name in ("finetune", "l1_sparse", "retrain"):
        assert not reads_request(method(name))
    assert reads_request(method("scrub"))
    assert reads_request(method("unsir"))
    assert reads_request(method("finetune"), Localizer(budget=0.3))
    x, y = TOY.train.x, TOY.train.y
    model = oracle(TOY, GO, seeds=[7], cache=Cache(tmp_path)).models[0]
    made = []
    for forget in (slice(0, 9), slice(0, 3)):
        parts = Case.from_parts(
            forget=(x[forget], y[forget]),
            retain=(x[9:], y[9:]),
            task=TOY.task,
            recipe=TOY.recipe,
            fresh=TOY.fresh,
        )
        made.append(run_method(model, parts, None, "finetune").model)
    for a, b in zip(*(m.parameters() for m in made), strict=True):
        assert torch.equal(a, b)


class Refusing(NoOp):
    """Runs so many times and then refuses: originals come first, retrained models last."""

    id: ClassVar[str] = "refusing"
    left: ClassVar[int] = 0

    def apply(self, p, rt):
        if not Refusing.left:
            raise RuntimeError("this model never saw the rows")
        Refusing.left -= 1
        return p.model


@pytest.mark.parametrize("placebo_runs", [0, 2])
def test_a_method_that_refuses_models_without_the_rows_is_judged_without_placebo(
    tmp_path, placebo_runs
):
    Refusing.left = 8 + placebo_runs
    subject = subject_of(TOY, GO, Refusing(), Runtime(), Cache(tmp_path))
    assert plan(subject, 8).placebo == 8
    signals = collect_margins(subject, 8)
    assert signals.count(PLACEBO) == 0
    assert len(signals.members) == 32
    table, _, answers = judged(signals)
    assert [a.name for a in table.arms] == ["likeness"]
    assert "this model never saw the rows" in table.placebo
    assert any("counts as memory" in text for text in strong_limits(table))
    assert answers[0].answer == "not shown"
    assert "No placebo control" in answers[0].sentence


def test_outputs_that_overflow_in_a_placebo_leave_the_arm_out(tmp_path):
    class Huge(NoOp):
        id: ClassVar[str] = "huge"

        def apply(self, p, rt):
            if not Refusing.left:
                with torch.no_grad():
                    p.model[-1].weight.mul_(1e38)
            Refusing.left = max(Refusing.left - 1, 0)
            return p.model

    Refusing.left = 4
    signals = collect_margins(subject_of(TOY, GO, Huge(), Runtime(), Cache(tmp_path)), 4)
    assert (signals.count(PLACEBO), signals.count("floor")) == (0, 4)
    assert signals.left_out


def test_placebo_runs_are_kept_planned_and_never_more_than_n(tmp_path):
    subject = subject_of(TOY, GO, method("finetune"), Runtime(), Cache(tmp_path))
    first = plan(subject, 4, unlearn_seconds=100.0)
    assert (first.train, first.unlearn, first.placebo) == (12, 4, 4)
    assert first.seconds > 800
    assert "4 to unlearn and 4 placebo runs" in str(first)
    collect_margins(subject, 4)
    assert (plan(subject, 4).placebo, plan(subject, 6).placebo) == (0, 2)


def test_real_targets_have_a_placebo_arm_too_and_the_table_keeps_its_numbers(tmp_path):
    case = toy_case(Regression(2))
    signals = collect_margins(
        subject_of(case, GO, method("finetune"), Runtime(), Cache(tmp_path)), 8
    )
    table = strong_table(signals, Runtime(), judged_only=True)
    alone = strong_table(signals.without(PLACEBO), Runtime(), judged_only=True)
    assert table.rows == alone.rows
    assert [a.name for a in table.arms] == ["memory", "signature", "likeness"]
    assert table.arm("memory").attack is None
    assert table.arm("memory").p is not None


@pytest.mark.slow
@pytest.mark.parametrize("draws", [5, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_both_questions_accuse_equal_arms_no_more_often_than_said(draws):
    found = [
        judged(arms(0.0, 0.0, sections=SMALL, seed=s), reads_request=True) for s in range(draws)
    ]
    alarms = {
        "memory": sum(bool(v & {Verdict.LEAKS, Verdict.OVER_FORGOT}) for _, v, _ in found),
        "likeness": sum(Verdict.DISTINGUISHABLE in v for _, v, _ in found),
    }
    for name, count in alarms.items():
        assert count <= stats.binom.ppf(0.999, draws, 0.05), (name, alarms)


SMALL = dict.fromkeys(SECTIONS, 12)
