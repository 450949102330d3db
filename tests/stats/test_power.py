"""What tests detect, against a known chance."""

import math

import pytest

from unlearnkit.stats.power import minimum_detectable_effect


def test_what_is_never_found_is_nan():
    assert math.isnan(minimum_detectable_effect(lambda _: 0.5, 10.0))
    assert minimum_detectable_effect(lambda d: min(d, 1.0), 10.0) == pytest.approx(0.8)
