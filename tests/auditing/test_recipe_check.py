"""The recipe check: does the recipe, or the user's own loop, give models like the one at hand?"""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from scipy import stats

import unlearnkit as uk
from tests.report.report_samples import row
from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.auditing.recipe_check import compare_with_originals
from unlearnkit.auditing.recipe_marks import MARK, mark_findings, under_recipe
from unlearnkit.auditing.recipe_measures import TESTED, recipe_measures
from unlearnkit.auditing.verdicts_reference import OTHER_RECIPE, VerdictInputs, judge
from unlearnkit.cache import Cache
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Answer, Finding, Verdict
from unlearnkit.stats.multiple_testing import cauchy_combination
from unlearnkit.stats.oracle_gap import Judgement
from unlearnkit.testing import toy_case

GO = uk.Rows(range(31))
MISMATCH = RecipeCheck(outcome="mismatch", sentence="it differs")
GENUINE = RecipeCheck(outcome="reproduced", sentence="it does not differ")
CASES = ("breast_cancer", pytest.param("diabetes", marks=pytest.mark.exhaustive))
"""Of real targets, loops of the user's own are checked each time, below."""


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return uk.catalog.cases()[request.param].make()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("recipe"))


def shorter(case):
    recipe = case.recipe
    return case.replace(recipe=recipe.model_copy(update={"epochs": recipe.epochs // 5}))


def audited(model, case, cache, request=GO, **more):
    """Audit the retrained model, which passes, so that the recipe alone can change the verdict."""
    truth = uk.oracle(case, request, seeds=5, cache=cache)
    done = uk.unlearn(model, case, request, "retrain", Runtime(seed=50))
    return uk.audit(done, oracle=truth, cache=cache, placebo=False, **more)


@pytest.fixture
def toy():
    """A small case, and a model that no cache of these tests holds."""
    case = toy_case(uk.Classification(3))
    return case, uk.train_original(case, seed=77).model


@pytest.fixture(scope="module")
def genuine(case, cache):
    return audited(uk.train_original(case, seed=77).model, case, cache)


@pytest.fixture(scope="module")
def wrong(case, cache):
    return audited(uk.train_original(shorter(case), seed=78).model, case, cache)


def test_a_model_of_the_recipe_is_reproduced(genuine):
    assert genuine.recipe.outcome == "reproduced"
    assert len(genuine.recipe.seeds) == 5
    assert OTHER_RECIPE not in genuine.full()
    assert genuine.summary[-1].judgement == "reproduced"


def test_a_fifth_of_the_epochs_is_accused_at_the_head_of_every_form_of_the_report(wrong, tmp_path):
    check = wrong.recipe
    assert check.outcome == "mismatch"
    assert check.p < 0.01
    told = "the retrained models below are not what this model would have become"
    assert told in check.sentence
    page = wrong.save(tmp_path / "r.html").read_text("utf-8")
    for text in (str(wrong), wrong.full(), page[page.index("<main>") :]):
        head = " ".join(text.split())
        assert 0 <= head.index(told) < head.index(wrong.verdict.value)
    assert Report.load(wrong.save(tmp_path / "r.json")).recipe == check
    assert "Case(train_model=fn)" in wrong.next_steps[0].action
    assert "less closely" in wrong.next_steps[0].action
    assert len(wrong.summary) <= 8
    assert wrong.summary[-1].judgement == "mismatch"


def test_a_mismatch_leaves_no_passing_verdict_and_marks_every_other_one(wrong):
    found = {f.verdict for f in wrong.findings}
    assert not found & {Verdict.MATCHES, Verdict.MEMORY_GONE}
    assert any(f.reason.startswith(OTHER_RECIPE) for f in wrong.findings)
    for f in wrong.findings:
        assert (f.verdict is Verdict.INCONCLUSIVE) != f.reason.endswith(MARK)
    assert all(a.answer != "yes" for a in wrong.answers)


def reference_verdicts(recipe):
    """Verdicts of a model that equals retraining where the original does not."""
    oracles = (0.90, 0.91, 0.89, 0.905, 0.895)
    one = row("accuracy_test", 0.9, original=0.5, oracles=oracles, margin=0.05)
    one = one.model_copy(update={"judgement": Judgement.EQUIVALENT})
    return judge(VerdictInputs([one], False, False, False, 5, recipe=recipe))


def test_a_verdict_that_would_pass_is_turned():
    assert [f.verdict for f in reference_verdicts(None)] == [Verdict.MATCHES]
    assert [f.verdict for f in reference_verdicts(GENUINE)] == [Verdict.MATCHES]
    (turned,) = reference_verdicts(MISMATCH)
    assert turned.verdict is Verdict.INCONCLUSIVE
    assert turned.reason == f"{OTHER_RECIPE}: it differs"


def test_other_verdicts_and_answers_are_marked_once():
    found = [
        Finding(verdict=Verdict.LEAKS, reason="rows are known"),
        Finding(verdict=Verdict.INCONCLUSIVE, reason="too few"),
    ]
    assert mark_findings(found, GENUINE) == tuple(found)
    once = mark_findings(found, MISMATCH)
    assert [f.reason for f in once] == [f"rows are known; {MARK}", "too few"]
    assert mark_findings(once, MISMATCH) == once
    yes = Answer(question="likeness", answer="yes", sentence="Yes: equal.", power="")
    no = Answer(question="memory", answer="no", sentence=f"No. It leaks; {MARK}.", power="")
    answers = under_recipe([yes, no], MISMATCH)
    assert [a.answer for a in answers] == ["not shown", "no"]
    assert [a.sentence.count(MARK) for a in answers] == [1, 1]
    assert under_recipe([yes, no], GENUINE) == (yes, no)


def test_originals_are_trained_once_and_their_cost_is_told(toy, cache, monkeypatch):
    case, given = toy
    first = audited(given, case, cache, uk.Rows(range(12)), memory=AuditMemory())
    assert first.recipe.trained_models == 5
    calls = []
    monkeypatch.setattr(
        "unlearnkit.oracles.fit_together", lambda *_, **__: calls.append(1) or iter(())
    )
    monkeypatch.setattr("unlearnkit.oracles.fit_each", lambda *_: calls.append(1))
    again = audited(given, case, cache, uk.Rows(range(12)), memory=AuditMemory())
    assert not calls
    assert again.recipe.trained_models == 0
    assert again.recipe.p == first.recipe.p
    rows = len(case.train) * case.recipe.epochs
    assert again.recipe.forward == again.recipe.backward == 5 * rows
    assert "0 trained for this audit" in again.full()


def test_an_original_of_the_cache_is_known_without_training(cache):
    case = toy_case(uk.Classification(3))
    place = Cache(cache.root / "twin")
    model = uk.train_original(case, cache=place).model
    report = audited(model, case, place, uk.Rows(range(12)))
    assert report.recipe.outcome == "reproduced"
    assert "bit for bit" in report.recipe.sentence
    assert len([e for e in place.entries() if e.key["kind"] == "original"]) == 1


def test_the_check_can_be_switched_off(toy, cache):
    case, given = toy
    report = audited(given, case, cache, uk.Rows(range(12)), recipe_check=False)
    assert report.recipe.outcome == "not checked"
    assert any("switched off" in text for text in report.limits)
    assert OTHER_RECIPE not in report.full()


def test_the_fast_tier_has_nothing_to_check(toy):
    case, given = toy
    done = uk.unlearn(given, case, uk.Rows(range(12)), "finetune")
    assert uk.audit(done).recipe.outcome == "not checked"


def test_models_from_outside_follow_no_recipe(toy, cache):
    (case, given), go = toy, uk.Rows(range(12))
    models = uk.oracle(case, go, seeds=3, cache=cache).models
    done = uk.unlearn(given, case, go, "finetune")
    report = uk.audit(done, oracle=uk.Oracles.from_models(models, request=go), cache=cache)
    assert report.recipe.outcome == "not checked"
    assert any("come from outside" in text for text in report.limits)


def own_loop(epochs):
    """Return a training loop of the user's own, for regression."""

    def train(model, data, seed):
        x, y = (torch.as_tensor(t) for t in data)
        order = torch.Generator().manual_seed(seed)
        steps = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=order).split(32):
                steps.zero_grad()
                (model(x[rows]) - y[rows].reshape(len(rows), -1)).square().mean().backward()
                steps.step()
        return model

    return train


@pytest.mark.parametrize(("epochs", "outcome"), [(10, "reproduced"), (60, "mismatch")])
def test_a_loop_of_the_users_own_is_checked_like_a_recipe(epochs, outcome, tmp_path):
    base = uk.catalog.cases()["diabetes"].make()
    case = base.replace(recipe=None, train_model=own_loop(10))
    given = uk.train_original(case.replace(train_model=own_loop(epochs)), seed=9).model
    place = Cache(tmp_path)
    done = uk.unlearn(given, case, GO, "retrain")
    report = uk.audit(done, oracle=uk.oracle(case, GO, seeds=1, cache=place), cache=place)
    assert report.recipe.outcome == outcome
    assert report.recipe.trained_models == 5
    if outcome == "mismatch":
        assert "Make train_model the training" in report.next_steps[0].action
        assert "more closely" in report.next_steps[0].action


def test_one_slow_original_leaves_the_spread_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr("unlearnkit.auditing.recipe_check.SMALL_SECONDS", 0.0)
    base = uk.catalog.cases()["diabetes"].make()
    case = base.replace(recipe=None, train_model=own_loop(2))
    given = uk.train_original(case.replace(train_model=own_loop(30)), seed=9).model
    place = Cache(tmp_path)
    done = uk.unlearn(given, case, GO, "retrain")
    report = uk.audit(done, oracle=uk.oracle(case, GO, seeds=1, cache=place), cache=place)
    assert report.recipe.outcome == "spread unknown"
    assert report.recipe.seeds == (0,)
    assert report.recipe.p is None
    assert "does not show how far such models differ" in " ".join(str(report).split())
    assert any("nothing is concluded" in text for text in report.limits)


def test_a_strong_audit_turns_and_marks_as_well(cache):
    case = toy_case(uk.Classification(3))
    recipe = case.recipe.model_copy(update={"lr": case.recipe.lr / 20})
    given = uk.train_original(case.replace(recipe=recipe), seed=5).model
    done = uk.unlearn(given, case, uk.Rows(range(12)), "finetune")
    report = uk.audit(done, tier="strong", models=4, cache=cache)
    assert report.recipe.outcome == "mismatch"
    assert any(f.reason.startswith(OTHER_RECIPE) for f in report.findings)
    assert not {f.verdict for f in report.findings} & {Verdict.MATCHES, Verdict.MEMORY_GONE}
    assert "Correct the recipe" in report.next_steps[0].action


def test_a_case_after_deletions_is_not_accused(cache):
    case = toy_case(uk.Classification(3))
    done = uk.unlearn(uk.train_original(case).model, case, uk.Rows(range(12)), "finetune")
    after = case.after_deletion(uk.Rows(range(12)))
    report = audited(done.model, after, cache, uk.Classes(1))
    assert report.recipe.outcome == "not checked"
    assert "earlier deletions" in report.recipe.sentence


def test_quantities_are_those_of_a_linear_model_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
    weight = rng.normal(size=(1, 3))
    model = torch.nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weight))
    case = uk.Case(
        train=(torch.from_numpy(x), torch.from_numpy(y)), task="regression", fresh=lambda: model
    )
    model.requires_grad_(False)
    view = View.all(case.train)
    found = recipe_measures(model, view, None, case.task, Runtime(), {"weight"})
    residual = x @ weight.T - y
    assert found["loss_retain"] == pytest.approx((residual**2).mean())
    assert found["margin_mean"] == pytest.approx(-np.abs(residual).mean())
    assert found["margin_deviation"] == pytest.approx(np.abs(residual).std())
    assert found["output_deviation"] == pytest.approx((x @ weight.T).std())
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(weight))
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(2 * x.T @ residual / 40))
    assert "loss_test" not in found
    assert not model.weight.requires_grad


def test_each_quantity_is_tested_by_a_prediction_interval_on_its_logarithm():
    values = [1.0, 1.3, 0.8, 1.1, 0.9]
    compared = compare_with_originals({"loss_retain": 2.0}, [{"loss_retain": v} for v in values])
    logs = np.log(values)
    t = (math.log(2) - fmean(logs)) / (stdev(logs) * math.sqrt(1 + 1 / 5))
    (measure,) = [m for m in compared.measures if m.p is not None]
    assert measure.p == pytest.approx(2 * stats.t.sf(t, 4))
    assert compared.p == pytest.approx(measure.p)


def test_equal_originals_do_not_accuse_a_model_that_differs_by_rounding():
    same = dict.fromkeys(TESTED, 1.0)
    near = dict.fromkeys(TESTED, 1.0 + 1e-05)
    assert compare_with_originals(near, [same] * 5).p > 0.5


def test_the_cauchy_combination_is_that_of_scipys_law():
    p = [0.003, 0.2, 0.7]
    want = stats.cauchy.sf(np.mean(stats.cauchy.isf(p)))
    assert cauchy_combination(p) == pytest.approx(want)
    assert cauchy_combination([0.02] * 4) == pytest.approx(0.02)


@pytest.mark.parametrize("p", [[], [1.2], [math.nan]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(InputError, match="give p-values"):
        cauchy_combination(p)
