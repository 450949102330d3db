"""The networks for 32x32 images are those of the literature."""

import pytest
import torch
from torch import nn

from unlearnkit.cases.networks import all_cnn, resnet18, small_conv

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def conv_bn(channels, filters, kernel=3, bias=True):
    return kernel**2 * channels * filters + bias * filters + 2 * filters


def all_cnn_count(classes):
    wide = [(3, 96), (96, 96), (96, 192), (192, 192), (192, 192), (192, 192), (192, 192)]
    return sum(conv_bn(*c) for c in wide) + conv_bn(192, 192, 1) + 193 * classes


def resnet18_count(classes):
    total, channels = conv_bn(3, 64, bias=False), 64
    for filters in (64, 128, 256, 512):
        total += conv_bn(channels, filters, bias=False) + 3 * conv_bn(filters, filters, bias=False)
        total += conv_bn(channels, filters, 1, bias=False) if channels != filters else 0
        channels = filters
    return total + 513 * classes


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_resnet18_has_the_published_number_of_parameters():
    assert count(resnet18(10)) == 11_173_962
    assert count(resnet18(100)) == 11_220_132


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_parameters_are_as_many_as_the_layers_say(classes):
    assert count(resnet18(classes)) == resnet18_count(classes)
    assert count(all_cnn(classes)) == all_cnn_count(classes)
    assert count(small_conv(classes)) == 241_536 + 129 * classes


@pytest.mark.parametrize("make", [small_conv, all_cnn, resnet18])
@pytest.mark.parametrize("classes", [1, 10])
def test_images_become_one_logit_a_class(make, classes):
    assert make(classes).eval()(X).shape == (2, classes)


@pytest.mark.parametrize(("make", "cells"), [(small_conv, 4), (all_cnn, 8), (resnet18, 4)])
def test_strides_leave_this_many_positions_before_the_mean(make, cells):
    seen = []
    net = make()
    pool = next(m for m in net if isinstance(m, nn.AdaptiveAvgPool2d | nn.AvgPool2d))
    pool.register_forward_hook(lambda _m, given, _out: seen.append(given[0].shape[-1]))
    net.eval()(X)
    assert seen == [cells]


def test_filters_of_all_cnn_are_the_published_ones():
    convs = [m for m in all_cnn() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [96, 96, 192, 192, 192, 192, 192, 192]
    assert [c.stride[0] for c in convs] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert [c.kernel_size[0] for c in convs] == [3, 3, 3, 3, 3, 3, 3, 1]


def test_a_residual_block_without_weights_is_its_shortcut():
    block = next(m for m in resnet18() if hasattr(m, "shortcut")).eval()
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("make", [small_conv, all_cnn, resnet18])
def test_every_parameter_gets_a_gradient(make):
    net = make()
    net(X).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1
    )
