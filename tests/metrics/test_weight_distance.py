"""Distance of weights from oracles, by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.core.metric import Goal
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

METRIC = metrics()["weight_distance"]


def net(*values):
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in values))
    with torch.no_grad():
        for layer, value in zip(model, values, strict=True):
            layer.weight.fill_(value)
    return model


def seen(unlearned, *oracles):
    models = {"unlearned": unlearned} | {f"oracle/{k}": m for k, m in enumerate(oracles)}
    return Evidence(models, {}, Classification(2), Runtime())


def test_a_model_is_at_no_distance_from_itself():
    model = net(1.0, 2.0)
    assert METRIC(seen(model, copy.deepcopy(model))).value == 0.0


@pytest.mark.parametrize("scale", [0.5, -1.0, 3.0])
def test_a_scaled_oracle_is_its_change_of_scale_away(scale):
    oracle = net(1.0, -2.0)
    model = net(scale, -2.0 * scale)
    assert METRIC(seen(model, oracle)).value == pytest.approx(abs(scale - 1), rel=1e-12)
    assert METRIC(seen(oracle, model)).value == pytest.approx(abs(scale - 1) / abs(scale), rel=1e-9)


def test_it_is_the_mean_over_oracles_and_names_layers_beside_the_distance_of_oracles():
    score = METRIC(seen(net(1.0, 1.0), net(2.0, 1.0), net(1.0, 4.0)))
    first = math.sqrt(1 / (4 + 1))
    second = math.sqrt(9 / (1 + 16))
    assert score.value == pytest.approx((first + second) / 2, rel=1e-12)
    # Layer 0: 1/2 and 0 from the oracles, which are 1 and 1/2 from each other.
    assert "0 0.25 (between oracles 0.75)" in score.note


def test_parameters_are_matched_by_name_and_not_by_order():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    other = nn.ModuleDict({"b": copy.deepcopy(model["b"]), "a": copy.deepcopy(model["a"])})
    assert METRIC(seen(model, other)).value == 0.0


def test_models_of_other_shapes_are_not_compared():
    score = METRIC(seen(nn.Linear(1, 2), nn.Linear(1, 3)))
    assert math.isnan(score.value)
    assert "same parameters" in score.note


def test_it_is_a_fact_that_no_light_is_given_to():
    assert METRIC.goal is Goal.VALUE
    assert ModelRole.ORACLE in METRIC.reads
    assert "no measure of forgetting" in " ".join(METRIC.doc.split())
