"""Memory, signature and likeness: the placebo arm, its comparisons and its verdicts."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from tests.auditing.liars import NoOp
from tests.auditing.planted import SECTIONS, planted
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.permutation import permutation_test
from unlearnkit.attacks.ulira import ulira
from unlearnkit.auditing.memory_and_likeness import strong_answers
from unlearnkit.auditing.strong.cost_plan import plan
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO, reads_request
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.train_ensembles import FLOOR, collect_margins, subject_of
from unlearnkit.auditing.verdicts_strong import strong_findings, strong_limits
from unlearnkit.cache import Cache
from unlearnkit.catalog import method
from unlearnkit.core.case import Case
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Method, Need
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.oracles import oracle
from unlearnkit.report.schema import Verdict
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

TOY = toy_case(Classification(3))
GO = Rows(range(9))
WIDE = dict.fromkeys(SECTIONS, 100)


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
    table, verdicts, answers = judged(arms(0.0, 0.0, sections=WIDE))
    assert verdicts == {Verdict.MATCHES, Verdict.MEMORY_GONE}
    assert strong_findings(table)[0].verdict is Verdict.MATCHES
    assert [a.answer for a in answers] == ["yes", "yes"]


def test_a_signature_without_memory_is_distinguishable_and_memory_is_gone():
    table, verdicts, answers = judged(arms(-3.0, -3.0, sections=WIDE), reads_request=False)
    assert {Verdict.DISTINGUISHABLE, Verdict.MEMORY_GONE} <= verdicts
    assert not verdicts & {Verdict.LEAKS, Verdict.OVER_FORGOT}
    assert [a.answer for a in answers] == ["yes", "no"]
    assert table.arm("signature").shift.value == pytest.approx(-3.0, abs=0.2)
    assert "signature of the algorithm" in strong_findings(table)[0].reason


def test_a_request_that_pushes_rows_of_models_that_never_saw_them_is_over_forgetting():
    _, verdicts, answers = judged(arms(-3.0, -3.0, sections=WIDE), reads_request=True)
    assert Verdict.OVER_FORGOT in verdicts
    assert Verdict.MEMORY_GONE not in verdicts
    assert "the request itself shows" in answers[0].sentence.replace("request itself shows", "request itself shows")


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
    signals = arms(1.0, -0.5, sections=WIDE)
    table = strong_table(signals, Runtime())
    sides = {
        "memory": ("unlearned", PLACEBO),
        "signature": (PLACEBO, "oracle"),
        "likeness": ("unlearned", "oracle"),
    }
    assert [a.name for a in table.arms] == list(sides)
    for name, pair in sides.items():
        arm, (ours, theirs) = table.arm(name), (signals.of(w, "forget") for w in pair)
        assert arm.auc.value == pytest.approx(ulira(ours, theirs).auc)
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
    short = method("finetune", run={"kind": "restart", "renew": 1.0, "shrink": 0.0, "lr": 3.0})
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


class Knowing(Method):
    """Refuses models that do not know the forget set."""

    id: ClassVar[str] = "knowing"
    info = Info(
        title="Knowing",
        cite="",
        needs=frozenset({Need.FORGET, Need.LABELS}),
        tasks=frozenset({"classification"}),
    )

    def apply(self, p, rt):
        seen = p.forget.data.x[p.forget.rows]
        if float((p.model(seen).argmax(1) == p.forget.y).double().mean()) < LEAST_KNOWN:
            raise UnsupportedError("knowing: this model never saw these rows")
        return p.model


LEAST_KNOWN = 0.9


def unfriendly():
    """A case whose forget rows have labels that only their own models know."""
    x, y = TOY.train.x, TOY.train.y.clone()
    y[:9] = (y[:9] + 1) % 3
    recipe = TOY.recipe.model_copy(update={"epochs": 200, "lr": 0.3})
    return Case(
        train=(x, y),
        test=(TOY.test.x, TOY.test.y),
        task=TOY.task,
        fresh=TOY.fresh,
        recipe=recipe,
    )


def test_a_method_that_refuses_models_without_the_rows_is_judged_without_placebo(tmp_path):
    class Refusing(NoOp):
        id: ClassVar[str] = "refusing"

        def apply(self, p, rt):
            if rt.seed in refused:
                raise RuntimeError("this model never saw these rows")
            return p.model

    refused = set()
    subject = subject_of(TOY, GO, Refusing(), Runtime(), Cache(tmp_path))
    assert plan(subject, 4).placebo == 4
    collect_margins(subject, 4).count(PLACEBO)
    assert plan(subject, 6).placebo == 2
    refused |= {4, 5}
    with pytest.raises(RuntimeError, match="never saw"):
        collect_margins(subject, 6)
