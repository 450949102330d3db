"""Loss of utility on validation rows: against a count by hand, and what is left out."""

import math

import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.warm_restart import ShrinkingRestart
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.utility_loss import POINT, UtilityLoss, utility_loss
from unlearnkit.unlearning.run_method import run_method


class Says(nn.Module):
    """Returns its inputs, so that rows are their own logits."""

    def __init__(self, flip=()):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.flip = list(flip)

    def forward(self, x):
        out = x.clone()
        out[:, self.flip] = -out[:, self.flip]
        return out * self.w


def case_of(count=40, *, validation=True):
    y = torch.arange(count) % 4
    x = nn.functional.one_hot(y, 4).float()
    rows = (x, y)
    return Case(
        train=rows,
        validation=rows if validation else None,
        task=Classification(4),
        recipe=Recipe(epochs=1),
    )


def loss(model, case, request):
    rt = Runtime()
    found = utility_loss(model, Says(), case, case.partition(request), request, rt)
    return found, rt.cost.forward


def test_it_is_the_share_of_validation_rows_that_are_answered_worse():
    found, rows = loss(Says([2]), case_of(), Rows(0, 1))
    assert (found.before, found.after, found.count, rows) == (0.0, 0.25, 40, 80)
    assert found.lost == 0.25
    assert found.error == pytest.approx(math.sqrt(0.25 * 0.75 * 40 / 39 / 40))
    assert found.beyond(3)
    assert "on 40 validation rows of what stays accuracy went from 1.000 to 0.750" in str(found)


def test_rows_of_removed_classes_are_left_out():
    found, rows = loss(Says([2]), case_of(), Classes(2))
    assert (found.after, found.count, rows) == (0.0, 30, 60)
    assert not found.more_than_a_point


@pytest.mark.parametrize("case", [case_of(validation=False)])
def test_without_validation_rows_nothing_is_known(case):
    assert loss(Says([2]), case, Rows(0)) == (None, 0)


def test_real_targets_are_measured_in_their_deviations_and_a_removed_range_is_left_out():
    x = torch.linspace(-3, 3, 61)[:, None]
    rows = (x, x.clone())
    case = Case(train=rows, validation=rows, task="regression", recipe=Recipe(epochs=1))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.5)
    exact = nn.Linear(1, 1)
    exact.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    request = Targets(above=2.0)
    found = utility_loss(model, exact, case, case.partition(request), request, Runtime())
    left = x[x <= 2.0]
    assert found.count == len(left)
    assert found.lost == pytest.approx(0.5 / float(left.double().std()), rel=1e-6)
    assert "the mean error went from" in str(found)


@pytest.mark.parametrize(
    ("after", "much"), [(POINT, False), (POINT + 1e-9, True), (math.nan, True)]
)
def test_more_than_a_point_is_more_than_a_point_and_what_is_not_finite_is_a_loss(after, much):
    assert UtilityLoss(0.0, after, 10, 1.0, 0.0, classes=True).more_than_a_point is much


@pytest.mark.parametrize(("shrink", "says"), [(9.0, True), (0.0, False)])
def test_a_method_that_loses_more_than_a_point_says_so_and_others_say_nothing(shrink, says):
    case = toy_case(Classification(3))
    model = train_original(case).model
    how = ShrinkingRestart.build(run={"share": 0.2, "shrink": shrink})
    done = run_method(model, case, Rows(0, 1), how)
    notes = [n for n in done.notes if n.startswith("warm_restart: on 30 validation rows")]
    assert bool(notes) == says
    found = utility_loss(done.model, done.original, case, done.parts, Rows(0, 1), Runtime())
    assert found.more_than_a_point == says
