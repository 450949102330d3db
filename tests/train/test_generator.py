"""Generators make inputs of every shape, the published ones among them."""

import pytest
import torch

from unlearnkit.core.runtime import Runtime
from unlearnkit.train.data_free.generator import generator

Z = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))


def weights(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("shape", "count"), [((3, 32, 32), 1_280_521), ((1, 28, 28), 1_281_923)])
def test_the_published_generators_have_their_published_size(shape, count):
    net = generator(shape, Runtime(), "g")
    assert weights(net) == count
    assert net(Z[:2]).shape == (2, *shape)


@pytest.mark.parametrize(
    "shape",
    [(1, 4, 4), (1, 8, 8), (3, 30, 22), (3, 64, 64), (3, 224, 224), (13,), (2, 50), (5, 2, 2)],
)
def test_inputs_of_other_shapes_are_made_too(shape):
    net = generator(shape, Runtime(), "g", width=16)
    assert net(Z[:2]).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(1, 8, 8), (13,)])
def test_inputs_have_mean_0_and_variance_1(shape):
    x = generator(shape, Runtime(), "g", width=16)(Z).transpose(0, 1).flatten(1)
    torch.testing.assert_close(x.mean(1), torch.zeros(len(x)), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.var(1, unbiased=False), torch.ones(len(x)), rtol=0, atol=1e-3)


def test_weights_come_from_the_stream_alone():
    before = torch.get_rng_state()
    one, same, other = (generator((5,), Runtime(), s).state_dict() for s in "ggh")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, same[n]) for n, t in one.items())
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])


def test_weights_lie_as_layers_draw_them():
    w = generator((5,), Runtime(), "g", latent=100, width=200).body[0].weight.detach()
    assert float(w.abs().max()) <= 0.1
    assert float(w.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
