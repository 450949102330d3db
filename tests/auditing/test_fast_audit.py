"""The fast audit: retraining is never accused, memory and damage are, and why it cannot say.

Covers: auditing/fast_verdicts, auditing/control_models.
"""

import copy
from dataclasses import replace

import pytest
import torch

import unlearnkit as uk
from tests.auditing.liars import NoOp, Reinitialise
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import bundled_requests
from unlearnkit.catalog import cases
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Verdict

ACCUSATIONS = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DAMAGED}
BUNDLED = bundled_requests(cases())
QUICK = [
    ("breast_cancer", "random_tenth"),
    ("diabetes", "group"),
    ("digits", "class"),
    ("digits", "random_tenth"),
    ("digits", "low_entanglement"),
    ("digits", "non_iid"),
    ("digits_half", "mislabelled_tenth"),
]


def accusations(report):
    return [f for f in report.findings if f.verdict in ACCUSATIONS]


def retrained(case_id, name, seed=0):
    problem = cases()[case_id].ask(name)
    model = uk.train_original(problem.case).model
    return uk.unlearn(model, problem.case, problem.request, "retrain", Runtime(seed=seed))


@pytest.mark.parametrize(("case_id", "name"), QUICK)
def test_retraining_is_not_accused(case_id, name):
    assert not accusations(uk.audit(retrained(case_id, name), tier="fast"))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("case_id", "name"), BUNDLED)
@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_retraining_is_accused_on_no_bundled_request(case_id, name, tier):
    done = retrained(case_id, name)
    truth = uk.oracle(done.case, done.request, seeds=5) if tier == "reference" else None
    assert not accusations(uk.audit(done, oracle=truth, tier=tier))


@pytest.mark.exhaustive
@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_retraining_is_accused_on_at_most_one_of_twenty_random_draws(tier):
    case = cases()["digits"].make()
    model = uk.train_original(case).model
    accused = 0
    for draw in range(20):
        order = torch.randperm(len(case.train), generator=Runtime(seed=draw).rng("draw"))
        request = uk.Rows(order[: len(order) // 10].tolist())
        done = uk.unlearn(model, case, request, "retrain", Runtime(seed=draw))
        truth = uk.oracle(case, request, seeds=5) if tier == "reference" else None
        accused += bool(accusations(uk.audit(done, oracle=truth, tier=tier)))
    assert accused <= 1


@pytest.mark.exhaustive
@pytest.mark.parametrize(("case_id", "name"), BUNDLED)
def test_auto_returns_a_model_on_every_bundled_request(case_id, name):
    problem = cases()[case_id].ask(name)
    model = uk.train_original(problem.case).model
    done = uk.unlearn(model, problem.case, problem.request, "auto")
    assert done.choice.passed
    assert done.choice.cost is None or done.choice.cost <= done.choice.budget


def noisy_case(**changes):
    """Return a classification in which labels are random, so that rows must be learned by heart."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 8, generator=rng), torch.randint(3, (80,), generator=rng)
    test = torch.randn(120, 8, generator=rng), torch.randint(3, (120,), generator=rng)

    def fresh():
        return torch.nn.Sequential(
            torch.nn.Linear(8, 128), torch.nn.ReLU(), torch.nn.Linear(128, 3)
        )

    settings = {
        "train": (x, y),
        "test": test,
        "task": uk.Classification(3),
        "fresh": fresh,
        "recipe": uk.Recipe(optimizer="adam", lr=0.02, epochs=60, batch_size=80),
    }
    return uk.Case(**settings | changes)


GO = uk.Rows(range(40))


@pytest.fixture(scope="module")
def noisy_model():
    return uk.train_original(noisy_case()).model


def test_rows_that_are_known_by_heart_leak_and_the_control_is_named(noisy_model):
    report = uk.audit(uk.unlearn(noisy_model, noisy_case(), GO, NoOp()), tier="fast")
    leaks = [f for f in report.findings if f.verdict is Verdict.LEAKS]
    assert {m for f in leaks for m in f.rows} == {"margin_auc", "relearn_gap"}
    assert all("control model" in f.reason for f in leaks)


def test_without_a_control_nobody_is_accused_of_memory_and_the_remedy_is_named(noisy_model):
    done = uk.unlearn(noisy_model, noisy_case(fresh=None), GO, NoOp())
    report = uk.audit(done, tier="fast")
    assert not accusations(report)
    assert any("the case has no fresh" in f.reason for f in report.findings)
    assert any("give the case fresh= and recipe=" in f.reason for f in report.findings)


def test_a_control_that_diverges_is_told_and_accuses_nobody(noisy_model):
    wild = noisy_case(recipe=uk.Recipe(lr=1e38, epochs=20, batch_size=80))
    report = uk.audit(uk.unlearn(noisy_model, wild, GO, NoOp()), tier="fast")
    assert not [f for f in accusations(report) if f.verdict is not Verdict.DAMAGED]
    assert any("diverged" in f.reason for f in report.findings)


def test_a_random_model_is_damaged():
    problem = cases()["digits"].ask("non_iid")
    model = uk.train_original(problem.case).model
    done = uk.unlearn(model, problem.case, problem.request, Reinitialise())
    report = uk.audit(done, tier="fast")
    assert Verdict.DAMAGED in {f.verdict for f in report.findings}


def test_a_loss_that_removal_explains_is_no_damage_and_more_of_it_is():
    # Test rows look like one owner's: without her rows nobody can answer them.
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(600, 4, generator=rng)
    owner = (torch.arange(600) < 200).long()
    y = torch.where(owner == 1, x[:, 0] < 0, x[:, 0] > 0).long()
    x = torch.cat([x, 3.0 * owner[:, None].float()], 1)
    order = torch.randperm(600, generator=rng)
    x, y, owner = x[order], y[order], owner[order]

    def fresh():
        return torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))

    case = uk.Case(
        train=(x[:400], y[:400]),
        test=(x[400:], y[400:]),
        task=uk.Classification(2),
        fresh=fresh,
        recipe=uk.Recipe(optimizer="adam", lr=0.02, epochs=100, batch_size=50),
        group=owner[:400],
    )
    done = uk.unlearn(uk.train_original(case).model, case, uk.Groups(1), "retrain")
    report = uk.audit(done, tier="fast")
    row = report.row("accuracy_test")
    assert row.estimate.value < row.original.value - 0.1
    assert not accusations(report)
    assert any("retraining may cost as much" in f.reason for f in report.findings)
    worse = copy.deepcopy(done.model)
    with torch.no_grad():
        worse[-1].weight.copy_(worse[-1].weight.flip(0))
        worse[-1].bias.copy_(worse[-1].bias.flip(0))
    assert Verdict.DAMAGED in {
        f.verdict for f in uk.audit(replace(done, model=worse), tier="fast").findings
    }


def test_controls_are_trained_only_before_an_accusation_and_their_cost_counts(
    noisy_model, tmp_path
):
    def spent(method):
        rt, cache = Runtime(), Cache(tmp_path)
        before = len(list(cache.entries()))
        report = uk.audit(
            uk.unlearn(noisy_model, noisy_case(), GO, method), tier="fast", rt=rt, cache=cache
        )
        return len(list(cache.entries())) - before, rt.cost.backward, report

    controls, backward, _ = spent("retrain")
    assert (controls, backward) == (0, 0)
    controls, backward, _ = spent(NoOp())
    assert (controls, backward) == (1, 6 * 40)  # a tenth of 60 epochs over 40 retained rows
    controls, backward, _ = spent(NoOp())
    assert (controls, backward) == (0, 6 * 40)  # from the cache, and counted all the same


def test_a_training_of_few_epochs_has_a_control_on_a_sample_of_rows(noisy_model, tmp_path):
    short = noisy_case(recipe=uk.Recipe(optimizer="adam", lr=0.02, epochs=2, batch_size=80))
    rt = Runtime()
    uk.audit(uk.unlearn(noisy_model, short, GO, NoOp()), tier="fast", rt=rt, cache=Cache(tmp_path))
    assert rt.cost.backward == 8  # a tenth of two epochs over 40 rows, in one epoch


def test_the_levels_of_all_tests_together_are_those_of_one_false_alarm_in_a_hundred(noisy_model):
    from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS
    from unlearnkit.auditing.verdicts_fast import FastAudit

    done = uk.unlearn(noisy_model, noisy_case(), GO, NoOp())
    table = {r.metric: r for r in uk.audit(done, tier="fast").rows}
    audit = FastAudit(table, None, None, classes_removed=False, unchanged=False)
    # The attack, the relearning test, accuracy on retain and on test rows.
    assert audit.level == pytest.approx(1 - FALSE_ALARMS / 4)
    assert replace(audit, classes_removed=True).level == pytest.approx(1 - FALSE_ALARMS / 5)
