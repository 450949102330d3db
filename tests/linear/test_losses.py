"""Derivatives against finite differences, and bounds against what they bound."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from unlearnkit.linear.losses import (
    LOGISTIC_THIRD,
    LogisticLoss,
    MultinomialLoss,
    PoissonLoss,
    SmoothHingeLoss,
    SquaredLoss,
)

RNG = np.random.default_rng(0)
LOSSES = {
    "squared": (SquaredLoss(), RNG.normal(size=40)),
    "logistic": (LogisticLoss(), RNG.integers(0, 2, 40).astype(float)),
    "hinge": (SmoothHingeLoss(0.3), RNG.choice([-1.0, 1.0], 40)),
    "poisson": (PoissonLoss(), RNG.poisson(2.0, 40).astype(float)),
    "multinomial": (MultinomialLoss(), RNG.integers(0, 4, 40).astype(float)),
}


@pytest.fixture(params=LOSSES, ids=str)
def case(request):
    loss, y = LOSSES[request.param]
    z = np.random.default_rng(1).normal(size=(40, 4 if request.param == "multinomial" else 1))
    return loss, z, y


def test_the_slope_is_the_central_difference_of_the_value(case):
    loss, z, y = case
    h = 1e-5
    for k in range(z.shape[1]):
        e = h * (np.arange(z.shape[1]) == k)
        want = (loss.value(z + e, y) - loss.value(z - e, y)) / (2 * h)
        np.testing.assert_allclose(loss.slope(z, y)[:, k], want, rtol=1e-6, atol=1e-8)


def test_the_curvature_is_the_central_difference_of_the_slope(case):
    loss, z, y = case
    h = 1e-5
    for k in range(z.shape[1]):
        e = h * (np.arange(z.shape[1]) == k)
        want = (loss.slope(z + e, y) - loss.slope(z - e, y)) / (2 * h)
        np.testing.assert_allclose(loss.curvature(z, y)[:, :, k], want, rtol=1e-6, atol=1e-8)


def test_the_curvature_changes_no_faster_than_the_bound_on_the_third_derivative(case):
    loss, z, y = case
    other = z + np.random.default_rng(2).normal(size=z.shape)
    radius = np.maximum(np.linalg.norm(z, axis=1), np.linalg.norm(other, axis=1))
    change = np.linalg.norm(loss.curvature(z, y) - loss.curvature(other, y), ord=2, axis=(1, 2))
    limit = loss.third_bound(radius) * np.linalg.norm(z - other, axis=1)
    assert (change <= limit + 1e-12).all()


def test_the_logistic_bound_is_the_largest_third_derivative():
    found = minimize_scalar(lambda z: -expit(z) * expit(-z) * (1 - 2 * expit(z)), bounds=(-4, 0))
    assert -found.fun == pytest.approx(LOGISTIC_THIRD, rel=1e-6)


def test_the_hinge_bound_is_the_largest_third_derivative():
    h, z = 0.3, np.linspace(-2, 3, 20001)[:, None]
    loss, y = SmoothHingeLoss(h), np.ones(20001)
    third = np.gradient(loss.curvature(z, y)[:, 0, 0], z[:, 0])
    limit = loss.third_bound(np.zeros(1))[0]
    assert 0.999 * limit < abs(third).max() <= limit


def test_the_hinge_is_near_its_corner_when_the_bend_is_narrow():
    z = np.array([[-1.0], [0.0], [1.0], [2.0]])
    want = [2.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(SmoothHingeLoss(1e-3).value(z, np.ones(4)), want, atol=1e-3)


def test_no_third_derivative_of_the_multinomial_loss_exceeds_its_bound():
    rng = np.random.default_rng(3)
    p = softmax(rng.normal(scale=3, size=(20000, 5)), axis=1)
    u, v = rng.normal(size=(2, 20000, 5))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    centred = u - (p * u).sum(1, keepdims=True)
    third = (p * centred**2 * (v - (p * v).sum(1, keepdims=True))).sum(1)
    limit = MultinomialLoss().third_bound(np.zeros(1))[0]
    assert 0.1 * limit < abs(third).max() <= limit
