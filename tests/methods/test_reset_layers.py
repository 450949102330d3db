"""Reset of the last layers: what starts anew, what stays, and that a class goes."""

import copy

import pytest
import torch
from torch import nn

from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import predict
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.reset_layers import ResetLayers
from unlearnkit.methods.shrink_perturb import ShrinkPerturb
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import fresh_model, run_method

GO = Rows(range(6))
STILL = FineTuneSchedule(share=0.0)
"""No step is taken: what comes out is the start."""


def deep():
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)),
        *(nn.ReLU(), nn.Linear(8, 3)),
    )


@pytest.fixture(scope="module")
def three_layers():
    case = toy_case(Classification(3)).replace(fresh=deep)
    return train_original(case).model, case


@pytest.mark.parametrize(
    ("share", "first"),
    [(0.01, "6."), (0.4, "6."), (0.6, "3."), (1.0, "0.")],
)
def test_the_nearest_number_of_last_layers_starts_untrained(three_layers, share, first):
    model, case = three_layers
    how = ResetLayers(layers=share, renew=0.0, run=STILL, batch_norm="keep")
    done = run_method(model, case, GO, how).model.state_dict()
    fresh = fresh_model(case, Runtime()).state_dict()
    for name, was in model.state_dict().items():
        want = fresh[name] if name >= first else was
        assert torch.equal(done[name], want), name
        assert name.endswith("tracked") or "6.bias" in name or not torch.equal(was, fresh[name])


def test_earlier_layers_are_mixed_and_keep_their_statistics(three_layers):
    model, case = three_layers
    how = ResetLayers(layers=0.3, renew=0.25, run=STILL, batch_norm="keep")
    done = run_method(model, case, GO, how).model.state_dict()
    fresh = fresh_model(case, Runtime()).state_dict()
    was = model.state_dict()
    for name in ("0.weight", "1.bias", "3.weight", "4.weight"):
        torch.testing.assert_close(done[name], 0.75 * was[name] + 0.25 * fresh[name])
    for name in ("1.running_mean", "4.running_var"):
        assert torch.equal(done[name], was[name])
    assert torch.equal(done["6.weight"], fresh["6.weight"])


def test_a_weight_that_the_head_shares_with_an_earlier_layer_starts_untrained():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(6, 3, bias=False), nn.Linear(6, 3, bias=False)
            self.head.weight = self.first.weight

        def forward(self, x):
            return self.head(x + (self.first(x) @ self.first.weight))

    case = toy_case(Classification(3)).replace(fresh=Shared)
    done = run_method(train_original(case).model, case, GO, ResetLayers(renew=0.5, run=STILL)).model
    assert torch.equal(done.head.weight, fresh_model(case, Runtime()).head.weight)
    assert done.head.weight is done.first.weight


def test_all_layers_are_a_short_retraining_bit_for_bit(three_layers):
    model, case = three_layers
    one = run_method(model, case, GO, ResetLayers(layers=1.0)).model
    two = run_method(model, case, GO, ShrinkPerturb(renew=1.0, run=ResetLayers().run)).model
    for name, w in one.state_dict().items():
        assert torch.equal(w, two.state_dict()[name])


def test_the_forget_rows_never_influence_the_result(three_layers):
    model, case = three_layers
    x, y = (t.clone() for t in (case.train.x, case.train.y))
    x[:6] *= -40.0
    y[:6] = (y[:6] + 1) % 3
    other = case.replace(train=TensorData(x, y))
    one, two = (run_method(model, c, GO, ResetLayers()).model for c in (case, other))
    for name, w in one.state_dict().items():
        assert torch.equal(w, two.state_dict()[name])


def test_a_class_is_forgotten_where_fine_tuning_on_the_same_schedule_keeps_it():
    from unlearnkit.cases.digits import digits

    case = digits()
    model = train_original(case).model
    split = case.partition(Classes(3))

    def accuracy(how, view):
        done = run_method(model, case, Classes(3), how)
        assert done.cost.work <= 0.18 * 3 * case.recipe.epochs * len(split.retain)
        out = predict(done.model, view, case.task, Runtime())
        return (out.argmax(1) == view.y).double().mean().item()

    plain = ShrinkPerturb(renew=0.0, run=ResetLayers().run)
    assert accuracy(plain, split.forget) > 0.3
    assert accuracy(ResetLayers(), split.forget) < 0.01
    assert accuracy(ResetLayers(), split.retain) > 0.98


def test_a_note_names_the_layers_that_start_untrained(three_layers):
    model, case = three_layers
    done = run_method(model, case, GO, ResetLayers(layers=0.6))
    assert any("2 of 3 layers start untrained" in n and "'3'" in n for n in done.notes)


def test_last_layers_that_are_frozen_are_refused(three_layers):
    model, case = three_layers
    still = copy.deepcopy(model)
    still[6].requires_grad_(False)
    with pytest.raises(InputError, match=r"reset_layers: all is frozen from layer '6' on"):
        run_method(still, case, GO, ResetLayers(layers=0.3))
