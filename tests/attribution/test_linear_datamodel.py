"""Linear datamodels against scikit-learn, closed forms, and a world of known effects."""

import math

import pytest
import torch
from sklearn.linear_model import Lasso, Ridge

from tests.attribution.conftest import linear_world
from unlearnkit.attribution.linear_datamodel import difference_weights, lasso_effects, ridge_weights
from unlearnkit.core.errors import InputError


@pytest.mark.parametrize(("rows", "models"), [(12, 40), (40, 12)], ids=["more models", "more rows"])
@pytest.mark.parametrize("penalty", [0.1, 5.0])
def test_sums_of_ridge_effects_are_those_of_scikit_learn(rows, models, penalty):
    masks, y, _ = linear_world(rows, models, 0.3, outputs=3)
    along = torch.randn(2, rows, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    got = ridge_weights(masks, along, torch.tensor([penalty]))[0] @ y
    fitted = Ridge(alpha=penalty).fit(masks.double().numpy(), y.numpy())
    want = along @ torch.tensor(fitted.coef_).mT
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_differences_in_means_are_those_of_a_loop():
    masks, y, _ = linear_world(7, 30, 1.0, outputs=2)
    got = difference_weights(masks, torch.eye(7))[0] @ y
    want = torch.stack([y[masks[:, i]].mean(0) - y[~masks[:, i]].mean(0) for i in range(7)])
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_the_error_of_the_difference_in_means_is_the_derived_one():
    """Its variance is 4 (sigma^2 + 1/4 sum beta^2) / m, for subsets of half of the rows."""
    rows, models, noise = 40, 2000, 1.5
    masks, y, effects = linear_world(rows, models, noise, outputs=50)
    got = difference_weights(masks, torch.eye(rows))[0] @ y
    power = effects.square().sum(0).mean()
    want = math.sqrt(4 * (noise**2 + 0.25 * power) / models)
    assert (got - effects).square().mean().sqrt().item() == pytest.approx(want, rel=0.1)


def lasso_terms(masks, y):
    x = masks.double() - masks.double().mean(0)
    return x.mT @ x / len(x), x.mT @ (y - y.mean(0)) / len(x)


def test_lasso_effects_are_those_of_scikit_learn():
    masks, y, _ = linear_world(15, 60, 0.5, outputs=4)
    gram, products = lasso_terms(masks, y)
    penalty = torch.tensor([0.02, 0.1, 0.2, 10.0], dtype=torch.float64)
    got = lasso_effects(gram, products, penalty, tolerance=1e-10)
    for t, alpha in enumerate(penalty.tolist()):
        fitted = Lasso(alpha=alpha, tol=1e-12, max_iter=100_000).fit(masks.numpy(), y[:, t].numpy())
        torch.testing.assert_close(got[:, t], torch.tensor(fitted.coef_), rtol=1e-5, atol=1e-6)
    assert (got[:, 3] == 0).all()


def test_without_noise_lasso_finds_sparse_effects():
    masks, y, effects = linear_world(60, 200, 0.0, sparse=5)
    gram, products = lasso_terms(masks, y)
    got = lasso_effects(gram, products, torch.tensor([1e-5], dtype=torch.float64), tolerance=1e-10)
    torch.testing.assert_close(got, effects, rtol=0, atol=1e-3)


def test_a_row_that_every_model_has_is_named():
    masks = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
    with pytest.raises(InputError, match=r"row 0 is in 3 of 3 models.*give more models"):
        difference_weights(masks, torch.eye(3))
    difference_weights(masks, torch.eye(3)[1:])  # what is not asked for may be unknown


def test_a_penalty_of_zero_is_refused():
    with pytest.raises(InputError, match="penalties must be above 0"):
        ridge_weights(torch.eye(3).bool(), torch.eye(3), torch.tensor([0.0]))
