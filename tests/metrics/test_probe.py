"""The head probe against scikit-learn, and on features that hold or do not hold a class."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from unlearnkit.catalog import metrics
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics.head_probe import RIDGE, probe_error
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.features import features

TASK = Classification(3)
GONE = 2


def by_scikit(fit_go, fit_stay, go, stay):
    """Fit the same ridge with weights, centred and scaled by hand."""
    x = np.concatenate([fit_go, fit_stay])
    w = np.r_[np.full(len(fit_go), 0.5 / len(fit_go)), np.full(len(fit_stay), 0.5 / len(fit_stay))]
    y = np.r_[np.ones(len(fit_go)), -np.ones(len(fit_stay))]
    centre = (w[:, None] * x).sum(0)
    size = np.sqrt((w * ((x - centre) ** 2).sum(1)).sum())
    ridge = Ridge(alpha=RIDGE).fit((x - centre) / size, y, sample_weight=w)
    wrong = (ridge.predict((go - centre) / size) - 1) ** 2
    return (wrong.mean() + ((ridge.predict((stay - centre) / size) + 1) ** 2).mean()) / 2


@pytest.mark.parametrize(("rows", "width"), [((40, 90), 5), ((6, 9), 40), ((1, 30), 3)])
@pytest.mark.parametrize("seed", range(3))
def test_the_probe_is_a_weighted_ridge(seed, rows, width):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(k % 2, 1, (n, width)) for k, n in enumerate((*rows, 12, 17))]
    got = probe_error(*map(torch.from_numpy, parts))
    assert got == pytest.approx(by_scikit(*parts), rel=1e-8)


@pytest.mark.parametrize("change", [lambda x: 7 * x, lambda x: x + 3.0, lambda x: x.flip(1)])
def test_scale_origin_and_order_of_features_do_not_matter(change):
    rng = torch.Generator().manual_seed(0)
    parts = [torch.randn(20, 4, generator=rng, dtype=torch.float64) + k % 2 for k in range(4)]
    assert probe_error(*map(change, parts)) == pytest.approx(probe_error(*parts), rel=1e-9)


def test_constant_features_tell_nothing():
    assert probe_error(*(torch.ones(5, 3, dtype=torch.float64),) * 4) == 1.0


def test_features_that_are_not_finite_give_no_number():
    rows = torch.ones(5, 3, dtype=torch.float64)
    assert math.isnan(probe_error(rows * torch.inf, rows, rows, rows))


def net(seed=0):
    rng = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    return model


def views(gone=GONE):
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 3
    x = torch.eye(3, dtype=torch.float64)[y] + 0.3 * torch.randn(120, 3, generator=rng).double()
    data = TensorData(x, y)
    train, test = torch.arange(120) < 80, torch.arange(120) >= 80
    masks = {
        Split.FORGET: train & (y == gone),
        Split.RETAIN: train & (y != gone),
        Split.HELD_OUT: test & (y == gone),
        Split.TEST: test & (y != gone),
    }
    return {s: View(data, m.nonzero()[:, 0]) for s, m in masks.items()}


def evidence(model, rows=None):
    return Evidence({"unlearned": model}, rows or views(), TASK, Runtime(), random=net)


def test_features_are_what_the_last_layer_is_given():
    model, view = net().train(), views()[Split.TEST]
    got = features(model, view, TASK, Runtime())
    body = copy.deepcopy(model[:3]).eval()
    with torch.no_grad():
        want = body(view.data.x[view.rows])
    torch.testing.assert_close(got, want)
    assert model.training
    assert not model[3]._forward_pre_hooks


def test_a_masked_answer_does_not_hide_what_the_features_hold():
    model = net()
    honest = metrics()["head_probe"](evidence(model)).value
    with torch.no_grad():
        model[3].weight[GONE] = 0.0
        model[3].bias[GONE] = -100.0
    assert metrics()["head_probe"](evidence(model)).value == honest < 1


def test_features_without_the_class_tell_nothing_of_it():
    model = net()
    with torch.no_grad():
        model[0].weight.zero_()
    assert metrics()["head_probe"](evidence(model)).value == 1.0


def test_untrained_networks_stand_beside_it():
    e = evidence(net(9))
    want = [metrics()["head_probe"](evidence(net(k))).value for k in range(5)]
    got = metrics()["head_probe_untrained"](e).value
    assert got == pytest.approx(sum(want) / 5, rel=1e-9)


def test_without_a_factory_there_are_no_untrained_networks():
    e = Evidence({"unlearned": net()}, views(), TASK, Runtime())
    assert "fresh=" in metrics()["head_probe_untrained"](e).note


@pytest.mark.parametrize("name", ["head_probe", "head_probe_untrained"])
def test_rows_of_classes_that_stay_are_not_probed_for(name):
    rows = views()
    rows[Split.FORGET] = rows[Split.RETAIN].pick(torch.arange(10))
    score = metrics()[name](evidence(net(), rows))
    assert math.isnan(score.value)
    assert "no whole class" in score.note


@pytest.mark.parametrize("name", ["head_probe", "head_probe_untrained"])
def test_a_model_that_is_its_own_last_layer_has_no_features(name):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3, dtype=torch.float64))

        def forward(self, x):
            return x @ self.weight

    rows = views()
    e = Evidence({"unlearned": Bare()}, rows, TASK, Runtime(), random=lambda k: Bare())
    score = metrics()[name](e)
    assert math.isnan(score.value)
    assert "last layer" in score.note


def test_an_oracle_in_the_seat_is_probed_itself():
    models = {"unlearned": net(0), "oracle/0": net(1), "oracle/1": net(2)}
    e = Evidence(models, views(), TASK, Runtime())
    probe = metrics()["head_probe"]
    assert probe(e.with_candidate(ModelRole.ORACLE, 0)).value == probe(evidence(net(1))).value
    assert probe(e).value == probe(evidence(net(0))).value
