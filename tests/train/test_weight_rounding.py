"""Rounding to 8 and 4 bits against loops in NumPy and the published levels."""

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.train.weight_rounding import in_4_bits, in_8_bits, nf4_levels, rounded_copy

PUBLISHED = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
"""QLoRA, appendix E."""


def matrix(rows=5, columns=40):
    return torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def test_the_levels_are_the_published_ones():
    torch.testing.assert_close(
        nf4_levels(), torch.tensor(PUBLISHED, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_eight_bits_are_127_steps_of_each_row_s_largest_weight():
    w = matrix()
    for row, got in zip(w.numpy(), in_8_bits(w).numpy(), strict=True):
        step = np.abs(row).max() / 127
        np.testing.assert_allclose(got, np.rint(row / step) * step, rtol=1e-12)
        assert np.abs(got - row).max() <= step / 2 + 1e-12


def test_four_bits_are_the_nearest_level_in_each_block_of_64():
    w = matrix()
    flat, got = w.numpy().ravel(), in_4_bits(w).numpy().ravel()
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        top = np.abs(block).max()
        near = [min(nf4_levels().numpy(), key=lambda v, x=x: abs(v - x / top)) * top for x in block]
        np.testing.assert_allclose(got[start : start + 64], near, rtol=1e-9, atol=1e-12)


def test_zeros_stay_zeros():
    assert not in_8_bits(torch.zeros(2, 3)).any()
    assert not in_4_bits(torch.zeros(2, 3)).any()


@pytest.mark.parametrize("bits", [4, 8])
def test_linear_layers_alone_are_rounded_and_the_model_stays(bits):
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 7))
    model[3].weight = model[0].weight
    before = {n: t.clone() for n, t in model.state_dict().items()}
    twin = rounded_copy(model, bits)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    moved = {n for n, t in twin.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"1.weight"}


def test_the_channels_of_a_transposed_layer_are_its_columns():
    pytest.importorskip("transformers")
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(6, 10)
    got = rounded_copy(layer, 8).weight
    torch.testing.assert_close(got.T, in_8_bits(layer.weight.detach().T))
