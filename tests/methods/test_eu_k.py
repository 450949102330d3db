"""EU-k: a new head on frozen features, and a short retraining where all layers are the last."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.eu_k import EUk
from unlearnkit.methods.shrink_perturb import ShrinkPerturb
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.testing.zoo import Tied
from unlearnkit.train.schedule import WarmRestart
from unlearnkit.unlearning.run_method import fresh_model, run_method

GO = Rows(0, 7, 9)
STILL = FineTuneSchedule(share=0.0)
"""No step is taken: what comes out is the start."""


def net():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def softmax_regression(x, y, w, b, *, lr, decay, steps):
    """Return a linear classifier after gradient descent with momentum 0.9, in NumPy."""
    w, b = w.copy(), b.copy()
    speed_w, speed_b = np.zeros_like(w), np.zeros_like(b)
    for step in range(steps):
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        speed_w = 0.9 * speed_w + p.T @ x / len(y) + decay * w
        speed_b = 0.9 * speed_b + p.mean(0) + decay * b
        rate = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        w, b = w - rate * speed_w, b - rate * speed_b
    return w, b


def test_one_layer_is_a_new_linear_classifier_on_the_frozen_features():
    case = toy_case(Classification(3))
    x, y = case.train.x.double(), case.train.y
    recipe = case.recipe.model_copy(
        update={"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01, "batch_size": 999, "epochs": 40}
    )
    case = case.replace(
        train=TensorData(x, y), test=None, validation=None, fresh=net, recipe=recipe
    )
    torch.manual_seed(3)
    model, rt = net(), Runtime(seed=4)
    run = FineTuneSchedule(lr=0.5, share=0.5)
    done = run_method(model, case, GO, EUk(run=run), rt).model

    stay = np.setdiff1d(np.arange(len(y)), GO.rows)
    hidden = np.tanh(
        x.numpy() @ model[0].weight.detach().numpy().T + model[0].bias.detach().numpy()
    )
    start = fresh_model(case, rt)[2]
    w, b = softmax_regression(
        hidden[stay],
        y.numpy()[stay],
        start.weight.detach().numpy(),
        start.bias.detach().numpy(),
        lr=0.15,
        decay=0.01,
        steps=20,
    )
    np.testing.assert_allclose(done[2].weight.detach().numpy(), w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(done[2].bias.detach().numpy(), b, rtol=0, atol=1e-12)
    assert torch.equal(done[0].weight, model[0].weight)
    assert torch.equal(done[0].bias, model[0].bias)


@pytest.mark.parametrize("run", [EUk().run, WarmRestart(lr=1.0)], ids=lambda r: r.kind)
def test_all_layers_are_a_short_retraining_bit_for_bit(layered, run):
    model, case = layered
    want = run_method(model, case, GO, ShrinkPerturb(renew=1.0, run=run))
    got = run_method(model, case, GO, EUk(layers=2, run=run))
    was = want.model.state_dict()
    assert all(torch.equal(t, was[n]) for n, t in got.model.state_dict().items())
    assert got.cost.work == want.cost.work > 0
    assert not torch.equal(was["0.weight"], model.state_dict()["0.weight"])


def test_the_start_is_the_original_below_and_the_untrained_network_above(layered):
    model, case = layered
    rt = Runtime(seed=6)
    done = run_method(model, case, GO, EUk(run=STILL), rt).model.state_dict()
    fresh, was = fresh_model(case, rt).state_dict(), model.state_dict()
    for name, t in done.items():
        assert torch.equal(t, (fresh if name.startswith("4.0") else was)[name]), name


def test_buffers_are_renewed_with_their_layer_and_only_there(normed_digits):
    model, case = normed_digits
    rt = Runtime(seed=6)
    how = EUk(layers=2, run=STILL, batch_norm="keep")
    done = run_method(model, case, GO, how, rt).model.state_dict()
    fresh, was = fresh_model(case, rt).state_dict(), model.state_dict()
    last = ("9.", "10.", "14.")
    for name, t in done.items():
        assert torch.equal(t, (fresh if name.startswith(last) else was)[name]), name
    assert not torch.equal(done["7.running_mean"], fresh["7.running_mean"])


@pytest.mark.parametrize("layers", [1, 2])
def test_earlier_layers_keep_their_bits_statistics_included(normed_digits, layers):
    model, case = normed_digits
    run = FineTuneSchedule.exact(lr=0.01, epochs=1, batch_size=256)
    done = run_method(model, case, GO, EUk(layers=layers, run=run)).model.state_dict()
    last = ("9.", "10.", "14.") if layers == 2 else ("14.",)
    for name, t in model.state_dict().items():
        if not name.startswith(last):
            assert torch.equal(done[name], t), name
    assert not torch.equal(done["14.weight"], model.state_dict()["14.weight"])


def test_neither_forget_rows_nor_the_old_head_influence_the_result():
    case = toy_case(Classification(3))
    model, go = train_original(case).model, Rows(range(6))
    x, y = (t.clone() for t in (case.train.x, case.train.y))
    x[:6] *= -40.0
    y[:6] = (y[:6] + 1) % 3
    other = copy.deepcopy(model)
    with torch.no_grad():
        for w in other[-1].parameters():
            w.mul_(-3.0)
    one = run_method(model, case, go, EUk()).model.state_dict()
    two = run_method(other, case.replace(train=TensorData(x, y)), go, EUk()).model.state_dict()
    assert all(torch.equal(t, two[n]) for n, t in one.items())


def test_by_default_a_run_costs_under_a_fifth_of_retraining(layered):
    model, case = layered
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60}))
    full = 3 * 60 * len(case.partition(GO).retain)
    assert 0.14 * full < run_method(model, case, GO, EUk()).cost.work <= 0.2 * full


def test_what_cannot_be_trained_alone_is_refused(layered):
    model, case = layered
    with pytest.raises(InputError, match=r"eu_k: layers: .*greater than or equal to 1, got 0"):
        EUk.build(layers=0)
    with pytest.raises(InputError, match=r"eu_k: layers: got 3, and the model has 2"):
        run_method(model, case, GO, EUk(layers=3))
    with pytest.raises(UnsupportedError, match="eu_k needs fresh"):
        run_method(model, case.replace(fresh=None), GO, EUk())
    tied = case.replace(fresh=lambda: Tied(6, 3))
    with pytest.raises(InputError, match=r"'down.weight' is also 'up.weight' of an earlier layer"):
        run_method(Tied(6, 3), tied, GO, EUk(layers=2))
    done = run_method(Tied(6, 3), tied, GO, EUk(layers=3)).model
    assert done.up.weight is done.down.weight


def test_a_frozen_parameter_of_the_last_layers_is_not_renewed():
    case = toy_case(Classification(3))
    model = case.fresh()
    model[-1].bias.requires_grad_(False)
    with torch.no_grad():
        model[-1].bias.fill_(2.0)
    done = run_method(model, case, GO, EUk()).model
    assert torch.equal(done[-1].bias, model[-1].bias)
    assert not torch.equal(done[-1].weight, model[-1].weight)


def test_normalisation_without_weights_is_held_while_the_head_is_trained():
    def normed(affine):
        return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=affine), nn.Linear(5, 3))

    heads = []
    for affine in (True, False):
        case = toy_case(Classification(3)).replace(fresh=lambda affine=affine: normed(affine))
        model = fresh_model(case, Runtime(seed=1)).eval()
        model[1].running_mean.fill_(0.3)
        model[1].running_var.fill_(4.0)
        heads.append(run_method(model, case, GO, EUk()).model[2].weight)
    assert torch.equal(*heads)
