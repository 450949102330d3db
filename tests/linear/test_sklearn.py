"""The estimators are scikit-learn's in every respect that its own checks cover."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.utils.estimator_checks import check_estimator

from tests.linear.problems import KINDS, made, model, sparse, weights
from unlearnkit.linear import Loss, RemovableGLM
from unlearnkit.linear.losses import LogisticLoss


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks provoke warnings of their own
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_own_checks_pass(kind):
    found = check_estimator(model(kind), on_skip=None, on_fail=None)
    assert [r["check_name"] for r in found if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in found) > 50


def reference(kind, alpha, rows):
    if kind == "ridge":
        return Ridge(alpha)
    if kind == "poisson":
        return PoissonRegressor(
            alpha=alpha / rows, tol=1e-12, max_iter=1000, solver="newton-cholesky"
        )
    return LogisticRegression(C=1 / alpha, tol=1e-12, max_iter=1000, solver="newton-cholesky")


@pytest.mark.parametrize("kind", ["ridge", "poisson", "logistic", "multinomial"])
@pytest.mark.parametrize("form", [np.asarray, sparse], ids=["dense", "sparse"])
def test_the_fit_is_that_of_scikit_learn(kind, form):
    x, y = made(kind)
    mine, theirs = model(kind, 2.0).fit(form(x), y), reference(kind, 2.0, len(x)).fit(x, y)
    np.testing.assert_allclose(mine.predict(form(x)), theirs.predict(x), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(mine.coef_), np.ravel(theirs.coef_), rtol=1e-6, atol=1e-7)


def test_an_elastic_net_is_that_of_scikit_learn():
    x, y = made("logistic")
    theirs = LogisticRegression(
        C=1 / 8, l1_ratio=0.5, solver="saga", tol=1e-12, max_iter=100_000
    ).fit(x, y)
    mine = model("logistic", 8.0, l1_ratio=0.5).fit(x, y)
    np.testing.assert_allclose(mine.coef_, theirs.coef_, atol=1e-8)
    assert (mine.coef_ == 0).sum() > 0
    assert mine.gradient_residual_norm() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_the_minimum_is_exact(kind):
    x, y = made(kind)
    assert model(kind).fit(x, y).gradient_residual_norm() < 1e-10


def test_dense_and_sparse_rows_give_the_same_certificate_and_weights():
    x, y = made("logistic")
    x[abs(x) < 0.3] = 0
    both = [model("logistic").fit(f(x), y) for f in (np.asarray, sparse)]
    done = [m.unlearn(rows=[3, 5]) for m in both]
    np.testing.assert_allclose(weights(both[0]), weights(both[1]), rtol=1e-10)
    assert done[0].budget_spent == pytest.approx(done[1].budget_spent, rel=1e-8)


@pytest.fixture
def large(monkeypatch):
    """Treat every sparse problem as too large for a dense Hessian."""
    for name in ("risk_minimizer.MOST_SPARSE", "removal_state.MOST_DENSE"):
        monkeypatch.setattr(f"unlearnkit.linear.{name}", 3)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("request_", [{"features": [2, 5]}, {"rows": [1, 8]}], ids=str)
def test_conjugate_gradients_reach_the_same_weights_as_a_dense_hessian(request_):
    x, y = made("logistic", width=12)
    dense, products = model("logistic", 5.0).fit(x, y), model("logistic", 5.0).fit(sparse(x), y)
    np.testing.assert_allclose(weights(products), weights(dense), atol=1e-9)
    a, b = dense.unlearn(**request_), products.unlearn(**request_)
    assert products.gradient_residual_norm() <= b.budget_spent
    step = np.linalg.norm(weights(products) - weights(dense))
    assert step <= 0.1 * b.budget_spent / 5.0
    assert a.budget_spent <= b.budget_spent


@pytest.mark.usefixtures("large")
def test_conjugate_gradients_are_exact_for_ridge_and_removed_columns():
    x, y = made("ridge", width=12)
    done = model("ridge").fit(sparse(x), y)
    done.unlearn(features=[2, 5])
    x[:, [2, 5]] = 0
    want = model("ridge").fit(x, y)
    np.testing.assert_allclose(weights(done), weights(want), atol=1e-8)
    assert abs(done.coef_[[2, 5]]).max() < 1e-12


def test_a_loss_of_your_own_is_fitted_like_a_built_in_one():
    x, y = made("logistic")
    own = RemovableGLM(LogisticLoss(), 1.0).fit(x, y)
    np.testing.assert_allclose(own.coef_, model("logistic").fit(x, y).coef_[0], atol=1e-10)


def test_a_loss_without_functions_says_so():
    x, y = made("logistic")
    with pytest.raises(NotImplementedError):
        RemovableGLM(Loss()).fit(x, y)


def test_many_columns_and_stored_factors_are_refused():
    x = sparse(np.eye(3, 5000))
    with pytest.raises(Exception, match=r"newton_step would store 5,001\^2 numbers"):
        model("logistic", method="newton_step").fit(x, [0, 1, 0])
