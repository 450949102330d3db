"""MobileNet-v2, the vision transformer, and thin versions of the published networks."""

import re
import sys

import pytest
import torch
from torch import nn

from unlearnkit.cases.networks import all_cnn, mobilenet_v2, resnet18, vit
from unlearnkit.core.errors import UnsupportedError

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TABLE = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
"""Expansion, filters, blocks: the paper's table 2."""


def count(net):
    return sum(p.numel() for p in net.parameters())


def mobilenet_count(classes):
    total, channels = 27 * 32 + 64, 32
    for expansion, filters, blocks in TABLE:
        for _ in range(blocks):
            inner = expansion * channels
            total += (channels * inner + 2 * inner) * (expansion > 1)
            total += 9 * inner + 2 * inner + inner * filters + 2 * filters
            channels = filters
    return total + 320 * 1280 + 2 * 1280 + 1281 * classes


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_mobilenet_has_as_many_parameters_as_the_layers_say(classes):
    assert count(mobilenet_v2(classes)) == mobilenet_count(classes) == 2_223_872 + 1281 * classes


def test_mobilenet_has_the_published_number_of_parameters():
    assert count(mobilenet_v2(1000)) == 3_504_872


def shapes(net):
    """Return channels and side after each of a sequence's layers."""
    seen, x = [], X
    net.eval()
    for layer in net:
        x = layer(x)
        seen.append(tuple(x.shape[1:]))
    return seen


def test_mobilenet_narrows_images_to_four_positions_a_side():
    ends = [16, 24, 32, 64, 96, 160, 320]
    found = shapes(mobilenet_v2())
    sides = {c: s for c, s, _ in (f for f in found if len(f) == 3) if c in ends}
    assert sides == {16: 32, 24: 32, 32: 16, 64: 8, 96: 8, 160: 4, 320: 4}
    assert found[-1] == (10,)


@pytest.mark.parametrize(
    ("width", "first"), [(1.0, 32), (0.5, 16), (0.35, 16), (0.1, 8), (1.4, 48)]
)
def test_widths_are_rounded_to_multiples_of_eight(width, first):
    convs = [m for m in mobilenet_v2(width=width).modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].out_channels == first
    assert all(c.out_channels % 8 == 0 for c in convs)
    assert convs[-1].out_channels == (1792 if width == 1.4 else 1280)


def test_the_end_of_a_bottleneck_is_linear_and_the_input_is_added():
    net = mobilenet_v2().eval()
    block = next(m for m in net if getattr(m, "adds", False))
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
    x = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(x), x)


def test_one_filter_looks_at_one_channel_in_the_middle_of_a_bottleneck():
    convs = [m for m in mobilenet_v2().modules() if isinstance(m, nn.Conv2d)]
    deep = [c for c in convs[1:] if c.kernel_size == (3, 3)]
    assert len(deep) == 17
    assert all(c.groups == c.in_channels == c.out_channels for c in deep)


@pytest.mark.parametrize("make", [all_cnn, resnet18])
def test_a_thin_network_has_the_shape_of_the_published_one(make):
    def ratio(thin, wide):
        return [(a.out_channels, b.out_channels) for a, b in zip(thin, wide, strict=True)]

    def convs(net):
        return [m for m in net.modules() if isinstance(m, nn.Conv2d)]

    pairs = ratio(convs(make(width=16)), convs(make()))
    assert len({wide / thin for thin, wide in pairs}) == 1
    assert make(5, width=16).eval()(X).shape == (2, 5)


@pytest.mark.parametrize("make", [mobilenet_v2, lambda: all_cnn(width=8)])
def test_every_weight_gets_a_gradient(make):
    net = make()
    net(X).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1
    )


def test_a_vision_transformer_has_as_many_parameters_as_the_paper_says():
    pytest.importorskip("transformers", reason="transformers is not installed")
    w, d, patch = 24, 3, 8
    tokens = (32 // patch) ** 2 + 1
    block = 4 * (w * w + w) + (w * 4 * w + 4 * w) + (4 * w * w + w) + 4 * w
    want = (3 * patch**2 * w + w) + tokens * w + w + d * block + 2 * w + (w * 7 + 7)
    net = vit(7, width=w, depth=d, heads=2, patch=patch)
    assert count(net) == want
    assert net(X).logits.shape == (2, 7)


def test_without_transformers_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnsupportedError, match=re.escape("pip install unlearnkit[hf]")):
        vit()
