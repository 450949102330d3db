"""A caller's model stays on its device; what runs elsewhere is a copy."""

import torch

import unlearnkit as uk
from unlearnkit.auditing.strong.mask_transfer import _trainable_as, distance_to_feature_mean
from unlearnkit.core.module_state import on_device
from unlearnkit.core.runtime import Runtime
from unlearnkit.testing import toy_case

GO = uk.Rows(range(12))


def test_a_model_elsewhere_is_copied_and_stays_where_it_is():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    before = dict(model.state_dict(keep_vars=True))
    moved = on_device(model, torch.device("meta"))
    assert moved is not model
    assert {t.device.type for t in moved.state_dict().values()} == {"meta"}
    after = model.state_dict(keep_vars=True)
    assert all(after[n] is t for n, t in before.items())
    assert {t.device.type for t in after.values()} == {"cpu"}


def test_a_model_that_is_there_already_is_not_copied():
    model = torch.nn.Linear(2, 2)
    assert on_device(model, torch.device("cpu")) is model


class Anchored(torch.nn.Module):
    """A perceptron that cannot be moved, but copied."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.net(x)

    def to(self, *args, **kwargs):
        if getattr(self, "anchored", False):
            raise AssertionError("the caller's model was moved")
        return super().to(*args, **kwargs)


def done():
    case = toy_case(uk.Classification(3)).replace(fresh=Anchored)
    made = uk.unlearn(uk.train_original(case).model, case, GO, "finetune")
    for model in (made.original, made.model):
        model.anchored = True
    return made


def test_an_audit_never_moves_the_models_that_it_is_given():
    made = done()
    weights = [p for m in (made.original, made.model) for p in m.parameters()]
    assert uk.audit(made).rows
    assert distance_to_feature_mean(made, Runtime()) is not None
    after = [p for m in (made.original, made.model) for p in m.parameters()]
    assert all(a is b for a, b in zip(weights, after, strict=True))


def test_what_is_made_trainable_for_a_while_is_then_as_it_was():
    like, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with _trainable_as(like, model):
        assert model.bias.requires_grad
    assert (model.weight.requires_grad, model.bias.requires_grad) == (True, False)
