"""Edit size on models edited by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from unlearnkit.catalog import metrics
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.core.metric import Goal
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

NAMES = ["edit_size", "edit_size_largest_layer", "edited_share", "edit_size_buffers"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.last = nn.Linear(2, 2, bias=False)
        self.scale = nn.Parameter(torch.tensor([2.0]))
        with torch.no_grad():
            for p in self.parameters():
                p.fill_(2.0)


def pair(edit=lambda net: None):
    original = Net()
    unlearned = copy.deepcopy(original)
    with torch.no_grad():
        edit(unlearned)
    models = {"original": original, "unlearned": unlearned}
    return Evidence(models, {}, Classification(2), Runtime())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_was_not_edited_has_no_edit_size(name):
    assert metrics()[name](pair()).value == 0.0


def test_edit_size_is_relative_to_the_norm_of_all_parameters():
    e = pair(lambda net: net.last.weight.add_(3.0))
    # 4 of 15 scalars, all 2, move by 3.
    assert metrics()["edit_size"](e).value == pytest.approx(math.sqrt(4 * 9 / (15 * 4)), rel=1e-12)


def test_the_largest_layer_is_found_and_named():
    def edit(net):
        net.first.bias.add_(1.0)
        net.last.weight.add_(3.0)

    score = metrics()["edit_size_largest_layer"](pair(edit))
    assert score.value == pytest.approx(1.5)
    assert score.note == "layer last"


def test_a_parameter_of_the_model_itself_is_a_layer_too():
    score = metrics()["edit_size_largest_layer"](pair(lambda net: net.scale.add_(1.0)))
    assert (score.value, score.note) == (0.5, "layer model")


def test_the_edited_share_counts_scalars_and_names_untouched_layers():
    score = metrics()["edited_share"](pair(lambda net: net.last.weight[0].add_(1e-6)))
    assert score.value == pytest.approx(2 / 15)
    assert score.note == "untouched layers: model, first, norm"


def test_buffers_are_measured_apart_and_counters_are_not_measured():
    def edit(net):
        net.norm.running_mean.add_(1.0)
        net.norm.num_batches_tracked.add_(7)

    e = pair(edit)
    # Means (0, 0) and variances (1, 1) become (1, 1) and (1, 1).
    assert metrics()["edit_size_buffers"](e).value == pytest.approx(1.0)
    assert metrics()["edit_size"](e).value == 0.0


def test_a_model_without_buffers_has_no_buffer_edit_size():
    models = {"original": nn.Linear(1, 2), "unlearned": nn.Linear(1, 2)}
    score = metrics()["edit_size_buffers"](Evidence(models, {}, Classification(2), Runtime()))
    assert math.isnan(score.value)
    assert "no floating-point buffers" in score.note


def test_weights_that_were_all_zero_are_infinitely_edited():
    models = {"original": nn.Linear(1, 2), "unlearned": nn.Linear(1, 2)}
    with torch.no_grad():
        models["original"].weight.zero_()
        models["original"].bias.zero_()
    score = metrics()["edit_size"](Evidence(models, {}, Classification(2), Runtime()))
    assert score.value == math.inf
    assert "all 0" in score.note


@pytest.mark.parametrize("name", NAMES[:3])
def test_models_of_other_shapes_are_not_compared(name):
    models = {"original": nn.Linear(1, 2), "unlearned": nn.Linear(1, 3)}
    score = metrics()[name](Evidence(models, {}, Classification(2), Runtime()))
    assert math.isnan(score.value)
    assert "same parameters" in score.note


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_weights_are_summed_in_double(dtype):
    models = {"original": nn.Linear(500, 500, dtype=dtype)}
    with torch.no_grad():
        for p in models["original"].parameters():
            p.fill_(200.0)
    models["unlearned"] = copy.deepcopy(models["original"])
    with torch.no_grad():
        for p in models["unlearned"].parameters():
            p.fill_(400.0)
    score = metrics()["edit_size"](Evidence(models, {}, Classification(2), Runtime()))
    assert score.value == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_have_no_weights(make, name):
    with pytest.raises(InputError, match="outputs only"):
        metrics()[name](make())


def test_an_edit_is_a_fact_and_never_a_distance_to_an_oracle():
    family = [m for m in metrics().values() if m.id in NAMES]
    assert sorted(m.id for m in family) == sorted(NAMES)
    assert all(
        m.goal is Goal.VALUE and ModelRole.ORACLE not in m.reads and m.models for m in family
    )
