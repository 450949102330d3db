"""The compact quasi-Newton product against the BFGS recursion on dense matrices."""

import numpy as np
import pytest
import torch

from unlearnkit.linalg.quasi_newton import quasi_newton_product


def dense_bfgs(s, y):
    """Return the matrix that one update a pair makes of ``sigma I``."""
    b = (s[:, -1] @ y[:, -1]) / (s[:, -1] @ s[:, -1]) * np.eye(len(s))
    for one, change in zip(s.T, y.T, strict=True):
        bs = b @ one
        b = b - np.outer(bs, bs) / (one @ bs) + np.outer(change, change) / (change @ one)
    return b


def pairs(count, seed=0, d=6):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    s = rng.normal(size=(d, count))
    return s, (root @ root.T + np.eye(d)) @ s, rng.normal(size=d)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_it_is_the_bfgs_matrix_times_the_vector(count, sign):
    s, y, v = pairs(count)
    got = quasi_newton_product(*(torch.from_numpy(a) for a in (s, sign * y, v)))
    np.testing.assert_allclose(got.numpy(), sign * dense_bfgs(s, y) @ v, rtol=1e-9)


def test_the_latest_pair_is_reproduced():
    s, y, _ = (torch.from_numpy(a) for a in pairs(3))
    torch.testing.assert_close(quasi_newton_product(s, y, s[:, -1]), y[:, -1])


def test_the_same_pair_twice_is_that_pair():
    s, y, v = (torch.from_numpy(a) for a in pairs(1))
    once, twice = (
        quasi_newton_product(torch.cat([s] * k, 1), torch.cat([y] * k, 1), v) for k in (1, 2)
    )
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=1e-8)
