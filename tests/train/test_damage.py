"""A model that is worse on the retain set than a constant answer never comes back unsaid."""

import math

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.case import Case
from unlearnkit.core.errors import DivergedError
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.damage import damage

WILD = FineTuneSchedule.exact(lr=1e6, momentum=0.0, epochs=1, batch_size=16)


@pytest.fixture
def toy():
    case = toy_case(Classification(3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = case.fresh()
    return model, case


def scaled(model, factor):
    """Return a copy whose outputs are so many times as large, with the sign turned."""
    out = nn.Linear(6, 3)
    with torch.no_grad():
        out.weight.copy_(-factor * torch.eye(3, 6))
        out.bias.zero_()
    return out


def test_a_method_that_trains_on_retained_rows_refuses_a_diverged_model(toy):
    model, case = toy
    with pytest.raises(DivergedError, match=r"finetune: diverged, .* retained rows .* in \d"):
        uk.unlearn(model, case, uk.Rows(range(5)), uk.method("finetune", run=WILD))


def test_a_method_that_is_known_to_do_damage_returns_it_with_a_note(toy):
    model, case = toy
    how = uk.method("gradient_ascent", "paper", run=WILD)
    done = uk.unlearn(model, case, uk.Rows(range(5)), how)
    assert [n for n in done.notes if "gradient_ascent: the model is damaged" in n]


def test_a_sound_run_says_nothing(toy):
    model, case = toy
    done = uk.unlearn(model, case, uk.Rows(range(5)), "finetune")
    assert not [n for n in done.notes if "damage" in n]


def test_the_loss_is_that_of_the_retained_rows_alone(toy):
    model, case = toy
    bad = scaled(model, 100.0)
    split = case.partition(uk.Rows(range(5)))
    found = damage(bad, model, case, split, Runtime())
    x, y = case.train.x[5:], case.train.y[5:]
    with torch.no_grad():
        want = nn.functional.cross_entropy(bad(x), y).item()
    assert found.loss == pytest.approx(want, rel=1e-5)
    assert found.constant == pytest.approx(math.log(3))
    assert (found.rows, found.largest, found.size) == ("retained", "weight", 100.0)
    assert found.diverged


def test_without_retained_rows_test_rows_are_looked_at_and_nothing_is_refused(toy):
    model, case = toy
    parts = Case.from_parts(
        forget=(case.train.x[:5], case.train.y[:5]), test=case.test, task=case.task
    )
    found = damage(scaled(model, 100.0), model, parts, parts.partition(None), Runtime())
    assert found.rows == "test"
    assert not found.diverged


def test_a_case_without_rows_to_look_at_is_noted(toy):
    model, case = toy
    parts = Case.from_parts(forget=(case.train.x[:5], case.train.y[:5]), task=case.task)
    done = uk.unlearn(model, parts, None, "gradient_ascent")
    assert [n for n in done.notes if "not checked for damage" in n]


def test_a_model_no_worse_than_its_original_is_not_accused(toy):
    model, case = toy
    bad = scaled(model, 100.0)
    split = case.partition(uk.Rows(range(5)))
    assert damage(bad, bad, case, split, Runtime()) is None


def test_the_check_is_not_in_the_methods_cost(toy):
    model, case = toy
    rt = Runtime()
    damage(scaled(model, 100.0), model, case, case.partition(uk.Rows(range(5))), rt)
    assert rt.cost.forward == 0
