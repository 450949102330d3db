"""Falling back, never failing in silence, counting all costs, the budget, each data door."""

from functools import partial

import pytest
import torch

import unlearnkit as uk
from experiments.small_cases import mixture, perceptron, wrong_rows
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.fast_verdict import fast_verdict
from unlearnkit.auto.chooser import AUDIT_ROWS, AUTO_CONTROL_SHARE, select_method
from unlearnkit.auto.decision_table import Rule
from unlearnkit.auto.selection import AutoFailedError, SelectedModel
from unlearnkit.cache import Cache
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.module_state import tensors, tensors_equal
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Groups, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.retraining_time import STEPS
from unlearnkit.unlearning.run_method import run_method as plain

pytestmark = pytest.mark.usefixtures("installed")


def lines(*candidates):
    whole = [{"cost": 0.1, **({"method": c} if isinstance(c, str) else c)} for c in candidates]
    one = {"id": "only", "because": "it is a test", "evidence": "none", "candidates": whole}
    return [Rule.model_validate(one)]


def normalised():
    return torch.nn.Sequential(
        *(torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU()),
        *(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)),
    )


GOOD = {"method": "relabel", "cost": 0.18}
RETRAIN = {"method": "retrain", "cost": 1.0, "exact": True}


def go(clouds, *candidates, budget=10.0, request=None, rt=None):
    model, case = clouds
    asked = Classes(1) if request is None else request
    return select_method(model, case, asked, Auto(budget=budget), rt, lines(*candidates))


def told(done):
    return {t.candidate: t.outcome for t in done.choice.candidates}


def test_a_candidate_that_passes_is_returned_with_its_reasons_and_nothing_else_is_tried(clouds):
    done = go(clouds, GOOD, "wreck")
    assert isinstance(done, SelectedModel)
    assert (done.method.id, done.choice.passed, done.choice.audited) == ("relabel", True, True)
    assert [t.candidate for t in done.choice.candidates] == ["relabel"]
    (note,) = [n for n in done.notes if n.startswith("auto: ")]
    assert note.startswith("auto: relabel, because it is a test (line only; none); ")
    assert "\n" not in note


def test_the_model_is_that_of_the_method_by_itself(clouds):
    model, case = clouds
    ours = go(clouds, "wreck", GOOD, rt=Runtime(seed=3)).model
    alone = plain(model, case, Classes(1), "relabel", Runtime(seed=3)).model
    assert all(tensors_equal(t, tensors(alone)[n]) for n, t in tensors(ours).items())


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("speck", "LEAKS"),
        ("wreck", "did not test for damage, because the model is worse; on 20 validation rows"),
        ("idle", "NOTHING CHANGED"),
        ("burst", "burst: diverged"),
        ("not_there", "no method 'not_there' is installed"),
    ],
)
def test_what_leaks_damages_idles_diverges_or_is_not_there_is_fallen_back_from(clouds, bad, word):
    done = go(clouds, bad, GOOD)
    assert done.method.id == "relabel"
    assert word in told(done)[bad]
    assert f"instead of {bad} (" in done.choice.why


def test_a_candidate_that_the_case_cannot_serve_is_passed_over(clouds):
    model, case = clouds
    done = go(
        (model, case.replace(fresh=None)),
        {"method": "shrink_perturb", "settings": {"renew": 0.4}},
        GOOD,
    )
    assert done.method.id == "relabel"
    assert "needs fresh, which the case does not give" in told(done)["shrink_perturb renew=0.4"]


@pytest.mark.parametrize("bad", [("speck",), ("idle",), ("burst", "speck", "idle")])
def test_where_all_leak_or_change_nothing_an_error_is_raised_that_carries_the_least_bad(
    clouds, bad
):
    with pytest.raises(AutoFailedError, match="no candidate passed the fast audit") as e:
        go(clouds, *bad)
    best = e.value.best
    assert not best.choice.passed
    assert any(n.startswith("auto: FAILED, do not use this model") for n in best.notes)
    assert all(b in str(e.value) for b in bad)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("bad", [("wreck",), ("speck", "wreck"), ("wreck", "speck", "idle")])
def test_a_model_that_is_damaged_and_does_not_leak_comes_back_and_says_that_it_did_not_pass(
    clouds, bad
):
    done = go(clouds, *bad)
    assert (done.method.id, done.choice.passed) == ("wreck", False)
    assert done.choice.lost > 0.3
    told_first, told_next = (n for n in done.notes if n.startswith("auto: "))
    assert told_first.startswith("auto: NOT PASSED: wreck, because")
    assert "answers worse than it should" in told_next


def test_of_damaged_models_the_one_that_lost_least_comes_back(clouds):
    done = go(clouds, "wreck", "scratch")
    assert done.method.id == "scratch"
    assert done.choice.lost < go(clouds, "wreck").choice.lost
    assert not done.choice.passed


def with_copies(clouds, copies):
    """Return the clouds with 40 validation rows of classes 0 and 2, the least sure one repeated."""
    model, case = clouds
    x, y = case.train.x, case.train.y
    with torch.no_grad():
        out = model.eval()(x)
    sure = (out[:, 2] - out[:, 0]).where(y == 2, torch.inf)
    last = sure.argmin()
    rest = ((y != 1) & (torch.arange(len(y)) != last)).nonzero()[:, 0]
    rows = torch.cat([last.repeat(copies), rest.repeat(2)[: 40 - copies]])
    return model, case.replace(validation=TensorData(x[rows], y[rows]))


def test_a_model_that_lost_accuracy_is_kept_in_hand_while_others_are_tried(clouds):
    done = go(with_copies(clouds, 3), "graze", GOOD)
    assert done.method.id == "relabel"
    assert done.choice.lost < 0.01
    assert (
        "on 40 validation rows of what stays accuracy went from 1.000 to 0.925" in done.choice.why
    )


def test_a_loss_that_may_be_chance_is_told_and_does_not_lead_to_retraining(clouds):
    done = go(with_copies(clouds, 3), "graze", RETRAIN)
    assert (done.method.id, done.choice.passed) == ("graze", True)
    assert done.choice.lost == pytest.approx(0.075)
    assert list(told(done)) == ["graze"]
    assert any(
        n.startswith("auto: it lost more than a point of accuracy, and nothing else that fitted")
        for n in done.notes
    )


def test_a_loss_beyond_chance_leads_to_retraining_where_the_budget_allows(clouds):
    done = go(with_copies(clouds, 4), "graze", RETRAIN)
    assert done.method.id == "retrain"
    assert done.choice.lost < 0.01
    done = go(with_copies(clouds, 4), "graze", RETRAIN, budget=0.3)
    assert (done.method.id, done.method.renew) == ("shrink_perturb", 1.0)
    assert done.choice.cost <= 0.3


def test_the_best_of_damaged_candidates_is_tried_once_more_for_twice_as_long(clouds):
    brief = {
        "method": "warm_restart",
        "settings": {"run": {"share": 0.03, "shrink": 9.0}},
        "cost": 0.03,
    }
    done = go(clouds, brief, RETRAIN, request=Rows(range(0, 60, 10)))
    tries = [t.candidate for t in done.choice.candidates]
    assert tries[:2] == [f"warm_restart run.share={s} run.shrink=9.0" for s in (0.03, 0.06)]


def test_where_labels_are_noisy_a_lower_fit_of_retained_rows_is_no_damage():
    recipe = Recipe(lr=0.1, momentum=0.9, schedule="cosine", epochs=60, batch_size=64)
    known = partial(mixture, recipe, "known by heart", perceptron(16, 256, 8), 0.5)
    asked = wrong_rows(known, 0.2, "noisy")
    case, half = asked.case, Rows(asked.request.rows[: len(asked.request.rows) // 2])
    model = uk.train_original(case).model
    done = select_method(
        model, case, half, Auto(budget=10.0), None, lines({"method": "warm_restart"})
    )
    report = uk.audit(done, tier="fast", recipe_check=False)
    assert "DAMAGED" not in [f.verdict for f in report.findings]
    assert (done.choice.kind, done.choice.passed) == ("atypical", True)
    assert done.choice.lost < 0


def test_the_least_bad_has_the_fewest_verdicts_against_it(clouds):
    with pytest.raises(AutoFailedError) as e:
        go(clouds, "idle", "speck")
    assert e.value.best.method.id == "speck"
    assert "LEAKS, NOTHING CHANGED" in str(e.value)


def test_where_none_can_run_the_error_says_why_for_each(clouds):
    with pytest.raises(
        UnsupportedError, match=r"no candidate of line only could run: a: no .*; b: "
    ):
        go(clouds, "a", "b")


def test_the_callers_model_stays_as_it_was_when_all_fail(clouds):
    before = {n: t.clone() for n, t in tensors(clouds[0]).items()}
    with pytest.raises(AutoFailedError):
        go(clouds, "idle", "speck")
    assert all(tensors_equal(t, before[n]) for n, t in tensors(clouds[0]).items())


def test_retraining_is_accepted_whatever_the_audit_says_and_the_note_says_what(clouds):
    # Rows that stay exactly as they are stand among the retained rows: retraining knows them too.
    model, case = clouds
    x, y = case.train.x, case.train.y
    twice = case.replace(train=type(case.train)(torch.cat([x, x]), torch.cat([y, y])))
    far = case.test.x.flip(0) * 5
    shifted = twice.replace(test=type(case.test)(far, case.test.y), held_out=None)
    model = uk.train_original(shifted).model
    done = go((model, shifted), RETRAIN, request=Rows(range(60)))
    assert done.method.id == "retrain"
    assert done.choice.passed
    assert "LEAKS" in told(done)["retrain"]
    assert "this is in the rows themselves" in told(done)["retrain"]


@pytest.mark.parametrize("bad", [("burst",), ("wreck", "burst"), ("wreck", "idle")])
def test_the_returned_cost_is_that_of_all_tries_the_audits_and_the_look(clouds, bad):
    model, case = clouds
    done = go(clouds, *bad, GOOD, request=Groups(2))
    split = case.partition(Groups(2))
    forward, backward = 60, 0  # the look: every training row once
    controls = ControlModels(case, split, Runtime(), Cache(), AUTO_CONTROL_SHARE, leaks_only=True)
    for name in (*bad, "relabel"):
        if name == "burst":
            forward += 54
            continue
        one = plain(model, case, Groups(2), name)
        rt = Runtime()
        fast_verdict(one, rt, controls, retain_rows=AUDIT_ROWS, damage=name != "wreck")
        forward += one.cost.forward + rt.cost.forward + 2 * len(case.validation)
        backward += one.cost.backward + rt.cost.backward
    forward += controls.rt.cost.forward + STEPS * case.recipe.batch_size
    backward += controls.rt.cost.backward + STEPS * case.recipe.batch_size
    assert (done.cost.forward, done.cost.backward) == (forward, backward)
    assert done.choice.cost == pytest.approx(done.cost.work / (3 * 40 * 54))
    ran = sum(t.work for t in done.choice.candidates)
    audits = sum(t.audit for t in done.choice.candidates)
    assert done.cost.work == 60 + 3 * STEPS * case.recipe.batch_size + ran + audits
    assert done.choice.checks == pytest.approx((done.cost.work - ran) / ran)


def test_damage_that_validation_rows_show_needs_no_controls_unless_nothing_else_passes(clouds):
    passed, alone = go(clouds, "wreck", GOOD), go(clouds, "wreck")
    (first, _), (only,) = passed.choice.candidates, alone.choice.candidates
    controls = 2 * 3 * 2 * 40  # two models, two epochs of 40 or 60 rows, a backward pass for two
    assert first.audit < 3 * 60 < controls < only.audit
    assert (first.work, only.outcome.split(";")[0]) == (only.work, "fast audit: DAMAGED")
    timed = 3 * 40  # an epoch of three batches
    assert alone.cost.work == only.work + only.audit + timed


def test_of_two_models_worse_on_validation_rows_both_are_looked_at_before_one_comes_back(clouds):
    done = go(clouds, "wreck", "scratch")
    assert all(said.startswith("fast audit: DAMAGED") for said in told(done).values())


def test_the_callers_meter_and_notes_stay_as_they_are(clouds):
    rt = Runtime()
    go(clouds, GOOD, rt=rt)
    assert (rt.cost.forward, rt.notes) == (0, [])


def test_a_candidate_beyond_the_budget_is_passed_over_and_a_cheaper_one_tried(clouds):
    dear = {"method": "relabel", "settings": {"run": {"share": 0.6}}, "cost": 0.6}
    done = go(clouds, dear, GOOD, budget=0.5)
    assert done.method.id == "relabel"
    assert done.choice.cost < 0.5
    # 0.6 for the method, 0.1 for two control models, and two models on all rows for the audit.
    assert "needs about 0.76 of retraining, and 0.50" in told(done)["relabel run.share=0.6"]


def test_the_cost_of_retraining_is_kept_in_reserve_from_a_budget_of_one_up(clouds):
    done = go(clouds, "wreck", RETRAIN, budget=1.2)
    assert done.method.id == "retrain"
    assert "needs about 0.26 of retraining, and 0.20 of the budget" in told(done)["wreck"]
    assert done.choice.cost <= done.choice.budget
    done = go(clouds, "wreck", RETRAIN, budget=1.5)
    assert "the fast audit found no leak" in told(done)["wreck"]
    assert done.method.id == "retrain"
    assert done.choice.cost <= done.choice.budget


def test_what_candidates_took_beyond_their_stated_cost_is_expected_of_the_next_ones(clouds):
    # Each relabelling costs more than twice what the table says: the second does not fit any more.
    dear = {"method": "relabel", "settings": {"run": {"share": 0.4}}, "cost": 0.18}
    leaky = {**dear, "settings": {"run": {"share": 0.4, "lr": 1e-9}}}
    done = go(clouds, leaky, dear, RETRAIN, budget=1.75)
    assert done.method.id == "retrain"
    assert done.choice.cost <= done.choice.budget
    assert "needs about" in told(done)["relabel run.share=0.4"]


@pytest.mark.parametrize("bad", [("wreck",), ("speck",), ("wreck", "speck", "idle")])
def test_where_retraining_does_not_fit_a_shorter_training_from_scratch_follows(clouds, bad):
    done = go(clouds, *bad, RETRAIN, budget=0.9)
    assert (done.method.id, done.method.renew, done.choice.passed) == ("shrink_perturb", 1.0, True)
    assert done.choice.cost <= done.choice.budget
    assert done.method.run.share > 0.2
    assert [t.candidate for t in done.choice.candidates if not t.ran] == ["retrain"]


def test_a_model_trained_from_scratch_at_the_end_of_a_budget_never_saw_the_forget_rows(clouds):
    model, case = clouds
    other = uk.train_original(case, seed=9).model
    one, two = (go((m, case), "wreck", RETRAIN, budget=0.9).model for m in (model, other))
    assert all(tensors_equal(t, tensors(two)[n]) for n, t in tensors(one).items())


def test_a_budget_below_every_candidate_is_told(clouds):
    with pytest.raises(UnsupportedError, match="a larger budget lets more of them run"):
        go(clouds, GOOD, budget=0.01)


def test_equal_seeds_give_equal_models_and_choices(clouds):
    a, b = (go(clouds, "wreck", GOOD, rt=Runtime(seed=5)) for _ in range(2))
    clock = {"processor_seconds", "processor_cost"}
    assert a.choice.model_dump(exclude=clock) == b.choice.model_dump(exclude=clock)
    assert all(tensors_equal(t, tensors(b.model)[n]) for n, t in tensors(a.model).items())


@pytest.mark.parametrize("request_", [Classes(1), Rows(range(0, 60, 10)), Groups(2)])
def test_by_name_it_uses_the_shipped_table(clouds, request_):
    model, case = clouds
    try:
        done = uk.unlearn(model, case, request_, "auto")
    except AutoFailedError as e:
        done = e.best
    assert done.choice.line == ("shallow_class" if isinstance(request_, Classes) else "shallow")
    assert done.choice.budget == 2.0


def test_other_methods_go_through_the_same_verb_as_before(clouds):
    model, case = clouds
    ours, theirs = (f(model, case, Classes(1), "finetune") for f in (uk.unlearn, plain))
    assert type(ours) is type(theirs)
    assert all(tensors_equal(t, tensors(theirs.model)[n]) for n, t in tensors(ours.model).items())


def test_the_lower_verb_refuses_it_because_it_cannot_audit(clouds):
    with pytest.raises(UnsupportedError, match=r"carry it out with uk\.unlearn"):
        plain(*clouds, Classes(1), "auto")


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"budget": "much"}, {"buget": 1}])
def test_a_wrong_setting_is_told(wrong):
    with pytest.raises(InputError):
        uk.method("auto", **wrong)


def parts(case, *, retain=True, test=True):
    split = case.partition(Rows(range(0, 60, 5)))
    pair = lambda v: (v.data.x[v.rows], v.data.y[v.rows])  # noqa: E731  # once
    return Case.from_parts(
        forget=pair(split.forget),
        retain=pair(split.retain) if retain else None,
        test=(case.test.x, case.test.y) if test else None,
        validation=(case.validation.x, case.validation.y),
        task=case.task,
        fresh=case.fresh,
        recipe=case.recipe,
    )


def test_the_door_of_parts_with_retained_rows_uses_them(clouds):
    model, case = clouds
    done = select_method(
        model, parts(case), None, Auto(budget=10), None, lines("wreck", GOOD, RETRAIN)
    )
    assert done.choice.kind == "random"
    assert done.choice.share == pytest.approx(0.2)
    assert done.method.id in {"relabel", "retrain"}


def test_the_door_without_retained_rows_passes_over_what_needs_them_and_keeps_no_budget(clouds):
    model, case = clouds
    done = select_method(
        model, parts(case, retain=False), None, Auto(budget=0.01), None, lines(GOOD, "wreck")
    )
    assert not done.choice.passed
    assert "needs retain" in told(done)["relabel"]
    assert done.choice.cost is None
    assert any("no budget kept" in n for n in done.notes)


def test_what_the_audit_could_not_see_is_said(clouds):
    model, case = clouds
    blind = parts(case, retain=False, test=False)
    done = select_method(model, blind, None, Auto(), None, lines("speck"))
    assert "no never-seen rows to compare with, no rows to check for damage" in done.choice.why


def test_the_door_without_data_returns_a_model_that_it_says_was_not_audited(clouds):
    model, case = clouds
    bare = Case.without_data(task=case.task, input_shape=(6,))
    done = select_method(model, bare, Classes(1), Auto(), None, lines(GOOD, "blind"))
    assert done.method.id == "blind"
    assert not done.choice.audited
    assert "not audited: there are no forget rows" in done.choice.why


def test_without_data_and_without_a_method_that_needs_none_the_error_names_what_is_missing(clouds):
    model, case = clouds
    bare = Case.without_data(task=case.task, input_shape=(6,))
    with pytest.raises(UnsupportedError, match=r"needs forget and retain|is installed"):
        select_method(model, bare, Classes(1), Auto(), None, lines("relabel"))


def test_where_no_line_holds_the_error_names_methods_that_work(clouds):
    whole = lines(GOOD)[0].model_dump()
    never = [Rule.model_validate({**whole, "when": {"tasks": ["language"]}})]
    with pytest.raises(UnsupportedError, match=r"no line of the table.*these work: .*finetune"):
        select_method(*clouds, Classes(1), Auto(), None, never)


def test_wrong_input_is_the_users_error_and_no_reason_to_try_another(clouds):
    model, case = clouds
    with pytest.raises(InputError, match="no row of class 9"):
        uk.unlearn(model, case, Classes(9), "auto")
    with pytest.raises(InputError, match="must be a torch module"):
        uk.unlearn(None, case, Classes(1), "auto")


def test_control_models_are_kept_in_the_callers_cache(clouds, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "default"))
    model, case = clouds
    cache = Cache(tmp_path / "own")
    select_method(model, case, Classes(1), Auto(budget=10.0), None, lines("wreck"), cache=cache)
    assert list(cache.entries())
    assert not (tmp_path / "default").exists()


def test_a_class_of_a_model_with_batch_normalisation_has_its_own_line(clouds):
    case = clouds[1].replace(fresh=normalised)
    done = uk.unlearn(uk.train_original(case).model, case, Classes(1), "auto")
    assert done.choice.line == "class_batch_norm"
    assert told(done)["reset_layers"]
