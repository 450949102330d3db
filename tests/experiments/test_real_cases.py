"""Canaries and Drebin: steps against a closed form, and what the pages say of their lines."""

import numpy as np
import pytest

from experiments.canaries import NUMBERS, Line, findings
from experiments.drebin import first_order
from unlearnkit.linear import RemovableRidge


def test_the_first_order_step_is_the_minimum_along_the_gradient():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    risk = RemovableRidge(alpha=2.0, fit_intercept=False).fit(x, x @ [1.0, 2, 3])._risk
    start = np.array([[0.5, -1.0, 2.0]])
    end, slope = first_order(risk, start), risk.gradient(start)
    assert np.linalg.matrix_rank(np.vstack([end - start, slope])) == 1
    assert (risk.gradient(end) * slope).sum() == pytest.approx(0, abs=1e-9 * (slope**2).sum())


def line(model, exposure, bits, test):
    values = dict(zip(NUMBERS, ([exposure], [bits], [test], [0.5]), strict=True))
    return Line(8, model, values, None)


def test_the_page_names_what_lowers_the_exposure_and_how_far_influence_updates_go():
    lines = [
        line("original", 13.3, 8.0, 0.49),
        line("retrained", 1.4, 64.0, 0.48),
        line("influence_first", 13.3, 17.0, 0.38),
        line("influence_second", 13.2, 9.0, 0.49),
        line("warm_restart", 7.0, 68.0, 0.46),
    ]
    told = findings(lines)
    assert "half a bit or more: `warm_restart` 7.0 (test accuracy 0.460)." in told
    assert "from 8.0 to 17.0 bits" in told
    assert "half a bit or more: none." in findings(lines[:4])
