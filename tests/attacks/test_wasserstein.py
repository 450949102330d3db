"""The Wasserstein distance against SciPy."""

import math

import pytest
import torch
from scipy import stats

from unlearnkit.attacks.wasserstein import wasserstein
from unlearnkit.stats import matrix_checks as cells


def normal(models, examples, seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(models, examples, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (7, 30), (1, 3)])
def test_the_distance_is_scipys_in_oracle_deviations(n, m):
    u, o = normal(n, 12, 1) * 2 + 1, normal(m, 12, 2).round(decimals=1)
    want = [
        stats.wasserstein_distance(a, b) / b.std(ddof=1)
        for a, b in zip(u.T.numpy(), o.T.numpy(), strict=True)
    ]
    torch.testing.assert_close(wasserstein(u, o).rows, torch.tensor(want))


def test_a_shift_is_its_own_distance():
    o = normal(50, 6, 1)
    shift = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 9.0], dtype=torch.float64)
    got = wasserstein(o + shift * o.std(0), o)
    torch.testing.assert_close(got.rows, shift.abs())
    torch.testing.assert_close(got.shift, shift)
    assert got.median == pytest.approx(1.0)


def test_the_floor_is_the_stated_one():
    rows = wasserstein(normal(100, 1000, 1), normal(100, 1000, 2)).rows
    assert float(rows.mean()) == pytest.approx(0.18, abs=0.01)


def test_oracles_that_do_not_vary_are_counted_and_left_out():
    o = normal(10, 3, 1)
    o[:, 1] = 4.0
    got = wasserstein(o + 1, o)
    assert got.rows.isnan().tolist() == [False, True, False]
    assert "do not vary at 1 of 3 examples" in got.note
    assert not math.isnan(got.median)


def test_pieces_do_not_change_the_numbers(monkeypatch):
    u, o = normal(9, 40, 1), normal(8, 40, 2)
    want = wasserstein(u, o).rows
    monkeypatch.setattr(cells, "CELLS", 500)
    torch.testing.assert_close(wasserstein(u, o).rows, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 2)])
def test_too_few_models_have_no_number(n, m):
    got = wasserstein(torch.zeros(n, 3), torch.zeros(m, 3))
    assert got.rows.isnan().all()
    assert f"{n} unlearned models and {m} oracles" in got.note
