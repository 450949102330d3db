"""Which layers are the last ones, and that the others keep every bit."""

import pytest
import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.testing.zoo import Tied
from unlearnkit.train.last_layers import earlier_layers_held, weight_layers


class Odd(nn.Module):
    """Normalisation before, between and after weights; a kernel of the model's own."""

    def __init__(self):
        super().__init__()
        self.inputs = nn.BatchNorm1d(4)
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
        self.norm = nn.BatchNorm1d(6, affine=False)
        self.second = nn.Sequential(
            nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, track_running_stats=True)
        )
        self.wide = nn.LayerNorm((3, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.first(self.inputs(x))).unflatten(1, (2, 3))
        return self.head(self.wide(self.second(x)).flatten(1))


def state(modules):
    both = ((*m.parameters(recurse=False), *m.buffers(recurse=False)) for m in modules)
    return [t.detach().clone() for some in both for t in some]


def step(model):
    """Run a batch in train mode and move whatever requires gradients."""
    model(torch.randn(8, 4)).square().sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)


def test_a_layer_has_a_weight_and_the_normalisation_up_to_the_next():
    model = Odd()
    layers = weight_layers(model)
    assert [layer.name for layer in layers] == ["first", "second.0", "head"]
    held = [{id(m) for m in layer.modules} for layer in layers]
    assert {id(model.inputs), id(model.norm), *map(id, model.first.modules())} <= held[0]
    assert {id(model.second[1]), id(model.wide)} <= held[1]
    counted = [id(p) for layer in layers for p in layer.parameters()]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())


def test_a_model_that_is_one_layer_and_one_with_a_weight_of_its_own_count_it():
    assert [layer.name for layer in weight_layers(nn.Linear(2, 2))] == [""]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model.register_parameter("tokens", nn.Parameter(torch.zeros(1, 2)))
    assert [layer.name for layer in weight_layers(model)] == ["", "0", "1"]


@pytest.mark.parametrize("count", [1, 2])
def test_earlier_layers_keep_every_bit_of_parameters_and_buffers(count):
    torch.manual_seed(0)
    model = Odd()
    first = [m for layer in weight_layers(model)[:-count] for m in layer.modules]
    last = weight_layers(model)[-count].modules
    before, moved = state(first), state(last)
    with earlier_layers_held(model, count, Runtime(), "test") as held:
        assert held == first
        step(model)
    assert all(map(torch.equal, before, state(first)))
    assert not all(map(torch.equal, moved, state(last)))
    assert not any(m.training for m in first if isinstance(m, nn.BatchNorm1d))
    assert model.head.training


def test_normalisation_that_was_in_eval_mode_by_itself_stays_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    model[1].eval()
    with earlier_layers_held(model, 2, Runtime(), "test"):
        assert not model[1].training
        step(model)
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_more_layers_than_there_are_is_refused_with_their_number():
    told = (
        r"eu_k: layers: got 4, and the model has 3 with a weight matrix or kernel; give 3 at most"
    )
    with pytest.raises(InputError, match=told), earlier_layers_held(Odd(), 4, Runtime(), "eu_k"):
        pass
    told = r"eu_k: the model has no layer with a weight matrix or kernel"
    with (
        pytest.raises(InputError, match=told),
        earlier_layers_held(nn.BatchNorm1d(3), 1, Runtime(), "eu_k"),
    ):
        pass


def test_last_layers_that_are_frozen_as_a_whole_are_refused():
    model = Odd()
    model.head.requires_grad_(False)
    told = r"cf_k: all is frozen from layer 'head' on, so nothing would be trained"
    with pytest.raises(InputError, match=told), earlier_layers_held(model, 1, Runtime(), "cf_k"):
        pass
    before = state([model.head])
    with earlier_layers_held(model, 2, Runtime(), "cf_k"):
        step(model)
    assert all(map(torch.equal, before, state([model.head])))


def test_a_weight_that_is_an_earlier_layers_too_is_refused():
    told = (
        r"cf_k: layers: 'down.weight' is also 'up.weight' of an earlier layer, .* than 2, up to 3"
    )
    with (
        pytest.raises(InputError, match=told),
        earlier_layers_held(Tied(4, 3), 2, Runtime(), "cf_k"),
    ):
        pass
    for count in (1, 3):
        with earlier_layers_held(Tied(4, 3), count, Runtime(), "cf_k"):
            pass
    frozen = Tied(4, 3)
    frozen.up.weight.requires_grad_(False)
    with earlier_layers_held(frozen, 2, Runtime(), "cf_k"):
        pass
