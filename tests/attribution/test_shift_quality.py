"""Quality of predicted shifts: NumPy's correlation, a slope by hand, and what is undefined."""

import math

import numpy as np
import pytest
import torch

from unlearnkit.attribution.shift_quality import ShiftQuality, shift_quality
from unlearnkit.core.errors import InputError


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_correlation_is_that_of_numpy_and_the_slope_that_of_least_squares():
    p = drawn(0, 5, 7, 3)
    o = 2 * p + 0.5 * drawn(1, 5, 7, 3)
    got = shift_quality(p, o)
    flat = p.double().flatten().numpy(), o.double().flatten().numpy()
    assert got.correlation == pytest.approx(np.corrcoef(*flat)[0, 1], abs=1e-12)
    assert got.slope == pytest.approx(np.linalg.lstsq(flat[0][:, None], flat[1])[0][0], abs=1e-12)


def test_too_few_models_and_constant_shifts_are_nan_with_the_reason():
    few = shift_quality(drawn(0, 1, 4), drawn(1, 1, 4))
    assert math.isnan(few.correlation)
    assert "1 held-out models, at least 2" in few.note
    flat = shift_quality(torch.zeros(3, 4), drawn(1, 3, 4))
    assert math.isnan(flat.slope)
    assert "constant" in flat.sentence()


def test_shifts_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="predicted shifts have shape"):
        shift_quality(torch.zeros(3, 4), torch.zeros(3, 5))


def test_a_quality_comes_back_from_its_facts():
    for quality in (ShiftQuality(0.5, 1.0, 4), shift_quality(drawn(0, 1, 4), drawn(1, 1, 4))):
        assert repr(ShiftQuality.of_facts(quality.facts())) == repr(quality)
