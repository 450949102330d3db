"""Layers are read through hooks, and found by their sizes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from unlearnkit.cases.networks import all_cnn, resnet18, small_conv
from unlearnkit.core.data import Batch
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.activations import (
    attention,
    attention_gap,
    capture_activations,
    match_layers,
    stage_ends,
)

TASK = Classification(10)


def batch(*shape):
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.zeros(2, dtype=torch.long), torch.arange(2))


def mlp(*widths):
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())][:-1])


class Tokens(nn.Module):
    """A transformer block between an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.block(self.embed(x)).mean(1))


def sizes(net, names, given):
    with torch.no_grad(), capture_activations(net, names) as found:
        net(given.x)
    return [tuple(found[name].shape[1:]) for name in names]


def test_the_last_run_is_read_with_its_gradient_and_no_hook_is_left():
    net, given = mlp(6, 5, 10), batch(6)
    with capture_activations(net, ("0",)) as found:
        net(torch.zeros(2, 6))
        net(given.x)
    want = net[0](given.x)
    torch.testing.assert_close(found["0"], want)
    (grad,) = torch.autograd.grad(found["0"].sum(), net[0].bias)
    torch.testing.assert_close(grad, torch.full((5,), 2.0))
    assert not any(m._forward_hooks for m in net.modules())


def test_inputs_of_layers_can_be_read_too():
    net, given = mlp(6, 5, 10), batch(6)
    with capture_activations(net, ("1",), "input") as found:
        net(given.x)
    torch.testing.assert_close(found["1"], net[0](given.x))


def test_hooks_go_after_an_error_too():
    net = mlp(6, 5, 10)
    with pytest.raises(RuntimeError), capture_activations(net, ("0",)):
        net(torch.zeros(2, 7))
    assert not any(m._forward_hooks for m in net.modules())


def test_an_unknown_layer_is_told_with_those_there_are():
    told = pytest.raises(UnknownNameError, match=r"no layer '7'.* There are: 0, 1, 2")
    with told, capture_activations(mlp(6, 5, 10), ("7",)):
        pass


def test_all_cnn_has_eight_blocks_of_the_published_sizes():
    net = all_cnn()
    blocks = [str(i) for i, m in enumerate(net) if isinstance(m, nn.ReLU)]
    got = sizes(net, blocks, batch(3, 32, 32))
    sides, filters = [32, 32, 16, 16, 16, 8, 8, 8], [96, 96, 192, 192, 192, 192, 192, 192]
    assert got == [(c, s, s) for c, s in zip(filters, sides, strict=True)]


@pytest.mark.parametrize(
    ("net", "shape", "want"),
    [
        (small_conv, (3, 32, 32), [(64, 16, 16), (128, 8, 8), (128, 4, 4)]),
        (resnet18, (3, 32, 32), [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
        (lambda: mlp(6, 5, 7, 10), (6,), [(5,), (7,)]),
        (lambda: nn.Linear(6, 10), (6,), []),
        (Tokens, (3, 4), [(3, 8)]),
    ],
    ids=["small conv", "resnet", "perceptron", "one layer", "tokens"],
)
def test_the_ends_of_stages_are_where_sizes_change(net, shape, want):
    model, given = net(), batch(*shape)
    assert sizes(model, stage_ends(model, TASK, given), given) == want


def test_finding_stages_moves_no_buffer_and_no_flag():
    net = small_conv().train()
    before = {n: b.clone() for n, b in net.named_buffers()}
    stage_ends(net, TASK, batch(3, 32, 32))
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (3, 6, 5), (3, 7)])
@pytest.mark.parametrize("scale", [-3.0, 0.01])
def test_attention_does_not_depend_on_the_scale(shape, scale):
    a = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(attention(a), attention(scale * a))


def test_attention_does_not_depend_on_the_order_of_channels():
    a = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(attention(a), attention(a.flip(1)))


def test_attention_is_the_formula():
    a = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want = 0.0
    for i in range(2):
        q = [(t[i] ** 2).mean(0).flatten() for t in (a, b)]
        q = [v / v.norm() for v in q]
        want += float(((q[0] - q[1]) ** 2).sum())
    assert float(attention_gap(attention(a), attention(b))) == pytest.approx(want / (2 * 3 * 4))


def test_stages_of_two_architectures_go_together_by_their_places():
    pairs = match_layers(resnet18(), small_conv(), None, TASK, batch(3, 32, 32))
    assert list(pairs.values()) == ["5", "9", "13"]


def test_named_layers_of_other_places_are_refused():
    with pytest.raises(InputError, match=r"layer 0: has places \(5,\) in the teacher, \(6,\)"):
        match_layers(mlp(6, 5, 10), mlp(6, 6, 10), ("0",), TASK, batch(6))
