"""Removal algorithms against retraining, in the words of the papers."""

import numpy as np
import pytest

from tests.linear.problems import KINDS, METHODS, made, model, sparse, weights
from unlearnkit.linear.losses import LogisticLoss
from unlearnkit.linear.residual_bounds import worst_case_bound

ROUNDING = 1e-10


def retrained(kind, x, y, alpha=1.0, **settings):
    return model(kind, alpha, **settings).fit(x, y)


def distance(a, b):
    return np.linalg.norm(weights(a) - weights(b))


@pytest.mark.parametrize("method", ["newton_removal", "newton_step"])
@pytest.mark.parametrize("count", [1, 10, 150])
@pytest.mark.parametrize("form", [np.asarray, sparse], ids=["dense", "sparse"])
def test_ridge_equals_retraining_for_any_number_of_rows(method, count, form):
    x, y = made("ridge")
    done = model("ridge", method=method).fit(form(x), y)
    found = done.unlearn(rows=range(count))
    np.testing.assert_allclose(
        weights(done), weights(retrained("ridge", x[count:], y[count:])), atol=1e-9
    )
    assert done.gradient_residual_norm() < 1e-9
    assert found.evidence == "exact"


@pytest.mark.parametrize("method", METHODS)
def test_ridge_equals_retraining_for_features(method):
    x, y = made("ridge")
    done = model("ridge", method=method).fit(x, y)
    done.unlearn(features=[1, 4])
    without = x.copy()
    without[:, [1, 4]] = 0
    np.testing.assert_allclose(weights(done), weights(retrained("ridge", without, y)), atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_ridge_equals_retraining_for_labels(method):
    x, y = made("ridge")
    done = model("ridge", method=method).fit(x, y)
    done.unlearn(labels={3: 1.5, 7: -2.0})
    y[[3, 7]] = 1.5, -2.0
    np.testing.assert_allclose(weights(done), weights(retrained("ridge", x, y)), atol=1e-8)


def test_the_jackknife_leaves_out_the_removed_rows_own_curvature():
    x, y = made("ridge")
    done = model("ridge", method="infinitesimal_jackknife", fit_intercept=False).fit(x, y)
    first = weights(done)[:-1]
    found = done.unlearn(rows=range(20))
    gone = x[:20]
    pull = gone.T @ (gone @ first - y[:20])
    want = first + np.linalg.solve(x.T @ x + np.eye(6), pull)
    np.testing.assert_allclose(weights(done)[:-1], want, rtol=1e-10)
    assert distance(done, retrained("ridge", x[20:], y[20:], fit_intercept=False)) > 1e-3
    assert found.evidence == "approximate"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_no_request_changes_no_bit(kind, method):
    x, y = made(kind)
    done = model(kind, method=method).fit(x, y)
    before = weights(done)
    for nothing in ({"rows": []}, {"labels": {}}, {"features": []}):
        done.unlearn(**nothing)
    assert np.array_equal(weights(done), before)


def test_no_request_changes_no_bit_of_an_elastic_net():
    x, y = made("logistic")
    done = model("logistic", 4.0, l1_ratio=0.5).fit(x, y)
    before = weights(done)
    done.unlearn(rows=[])
    assert np.array_equal(weights(done), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["newton_step", "infinitesimal_jackknife"])
def test_two_requests_are_one_request_for_both(kind, method):
    x, y = made(kind)
    one, two = (model(kind, method=method).fit(x, y) for _ in range(2))
    one.unlearn(rows=range(12))
    two.unlearn(rows=range(5, 12))
    two.unlearn(rows=range(5))
    np.testing.assert_allclose(weights(one), weights(two), atol=1e-12)


@pytest.mark.parametrize("kind", ["logistic", "multinomial", "hinge"])
def test_rank_one_updates_keep_the_inverse_hessian_of_the_rows_that_stay(kind):
    x, y = made(kind)
    done = model(kind, method="newton_step").fit(x, y)
    anchor = model(kind).fit(x, y)
    for row in range(100):
        done.unlearn(rows=[row])
    kept = done._risk  # removed rows have weight 0 there
    want = np.linalg.inv(kept.hessian(anchor._state.w))
    np.testing.assert_allclose(done._state.factors.inverse, want, atol=1e-10)


def aligned(m):
    """Return data whose first rows are one row many times, and a logistic label."""
    x, y = made("logistic", rows=1200, seed=3)
    x[:m], y[:m] = x[0], y[0]
    return x, y


@pytest.mark.parametrize("method", METHODS)
def test_twice_as_many_aligned_rows_quadruple_the_error(method):
    x, y = aligned(16)
    errors = []
    for m in (8, 16):
        done = model("logistic", 5.0, method=method).fit(x, y)
        done.unlearn(rows=range(m))
        errors.append(distance(done, retrained("logistic", x[m:], y[m:], 5.0)))
    assert 3.2 < errors[1] / errors[0] < 5.0


def test_random_rows_grow_more_slowly_and_the_newton_step_beats_the_jackknife():
    x, y = made("logistic", rows=1200, seed=3)
    errors = {}
    for m in (10, 100):
        draws = [np.random.default_rng(k).permutation(1200)[:m] for k in range(8)]
        for method in ("newton_step", "infinitesimal_jackknife"):
            found = []
            for rows in draws:
                done = model("logistic", 5.0, method=method).fit(x, y)
                assert 0.2 < done.unlearn(rows=rows).alignment < 2.5
                keep = np.delete(np.arange(1200), rows)
                found.append(distance(done, retrained("logistic", x[keep], y[keep], 5.0)))
            errors[method, m] = np.mean(found)
    jackknife, newton = "infinitesimal_jackknife", "newton_step"
    # Random gradients sum like sqrt m: the Newton step's error grows like m, the jackknife's like
    # m sqrt m (31.6 here), where aligned rows have m^2 (100). The limits are geometric means.
    assert errors[newton, 100] < 32 * errors[newton, 10]
    assert errors[jackknife, 100] < 56 * errors[jackknife, 10]
    assert errors[newton, 10] < errors[jackknife, 10]
    assert errors[newton, 100] < errors[jackknife, 100]


@pytest.mark.parametrize("kind", ["logistic", "multinomial", "hinge", "poisson"])
@pytest.mark.parametrize("method", METHODS)
def test_the_residual_of_every_request_is_within_its_bound(kind, method):
    x, y = made(kind, rows=200)
    done = model(kind, 2.0, method=method, penalize_intercept=True).fit(x, y)
    other = {int(y[70]): 1 - y[70]}[int(y[70])] if kind != "poisson" else y[70] + 1
    requests = [{"rows": [k, k + 1]} for k in range(0, 40, 2)]
    requests += [{"labels": {70: other}}, {"features": [2]}, {"rows": range(80, 100)}]
    for request in requests:
        found = done.unlearn(**request)
        residual = done.gradient_residual_norm()
        assert residual <= found.budget_spent + ROUNDING
        assert residual > 0.001 * found.budget_spent
    keep = np.r_[40:80, 100:200]
    x[:, 2] = 0
    y[70] = other
    again = retrained(kind, x[keep], y[keep], 2.0, penalize_intercept=True)
    assert distance(done, again) <= found.distance + ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_removals_one_by_one_stay_within_the_bound(method):
    x, y = made("logistic", rows=1500)
    done = model("logistic", 5.0, method=method, penalize_intercept=True).fit(x, y)
    for row in range(1000):
        found = done.unlearn(rows=[row])
        assert done.gradient_residual_norm() <= found.budget_spent
    again = retrained("logistic", x[1000:], y[1000:], 5.0, penalize_intercept=True)
    assert distance(done, again) <= found.distance
    assert found.rows == 1000


def test_the_worst_case_bound_is_far_above_the_data_dependent_one():
    x, y = made("logistic", rows=1500)
    found = model("logistic", 5.0, penalize_intercept=True).fit(x, y).unlearn(rows=[0])
    worst = worst_case_bound(
        LogisticLoss(), rows=1500, removed=1, alpha=5.0, slope=1.0, row_norm=np.sqrt(2)
    )
    assert found.budget_spent < 0.01 * worst


def test_a_removed_column_gets_the_weight_zero():
    x, y = made("logistic", rows=1500, width=30)
    done = model("logistic").fit(x, y)
    before = done.gradient_residual_norm()
    done.unlearn(features=[4])
    assert abs(done.coef_[0, 4]) < 1e-10
    assert before < 1e-10


def dense_logistic(x, y, w, alpha):
    """Return gradient and Hessian of an L2-logistic objective, written from the textbook."""
    p = 1 / (1 + np.exp(-x @ w))
    return x.T @ (p - y) + alpha * w, (x.T * (p * (1 - p))) @ x + alpha * np.eye(len(w))


def test_the_hessian_of_the_corrected_data_beats_that_of_the_old_data_and_first_order_steps():
    x, y = made("logistic", rows=1500, width=30)
    done = model("logistic", fit_intercept=False).fit(x, y)
    start = done.coef_[0].copy()
    done.unlearn(features=[4])
    gone = x.copy()
    gone[:, 4] = 0
    pull, new = dense_logistic(gone, y, start, 1.0)
    _, old = dense_logistic(x, y, start, 1.0)
    np.testing.assert_allclose(done.coef_[0], start - np.linalg.solve(new, pull), atol=1e-10)
    residual = lambda w: np.linalg.norm(dense_logistic(gone, y, w, 1.0)[0])  # noqa: E731
    ours = residual(done.coef_[0])
    assert ours == pytest.approx(done.gradient_residual_norm(), rel=1e-6)
    assert 10 * ours < residual(start - np.linalg.solve(old, pull))
    assert 10 * ours < min(residual(start - t * pull) for t in np.geomspace(1e-4, 0.1, 60))


def test_half_an_aligned_change_of_labels_leaves_a_quarter_of_the_residual():
    x, y = aligned(16)
    residuals = []
    for m in (8, 16):
        done = model("logistic", 5.0).fit(x, y)
        done.unlearn(labels=dict.fromkeys(range(m), 1 - y[0]))
        residuals.append(done.gradient_residual_norm())
    assert 3.2 < residuals[1] / residuals[0] < 5.0


def test_a_proximal_step_is_near_the_retrained_elastic_net():
    x, y = made("logistic", rows=1500, width=30)
    done = model("logistic", 10.0, l1_ratio=0.5).fit(x, y)
    before = weights(done)
    found = done.unlearn(rows=range(20))
    again = retrained("logistic", x[20:], y[20:], 10.0, l1_ratio=0.5)
    assert distance(done, again) < 0.05 * np.linalg.norm(before - weights(again))
    assert found.evidence == "approximate"
    assert found.distance is None


def test_sample_weights_are_removed_with_their_rows():
    x, y = made("ridge")
    s = np.random.default_rng(5).uniform(0.5, 2, len(y))
    done = model("ridge", method="newton_step").fit(x, y, s)
    done.unlearn(rows=[0, 9])
    keep = np.delete(np.arange(len(y)), [0, 9])
    want = model("ridge").fit(x[keep], y[keep], s[keep])
    np.testing.assert_allclose(weights(done), weights(want), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_repair_takes_an_aligned_removal_to_the_retrained_model(method):
    x, y = made("logistic", rows=1200, seed=3)
    rows = np.flatnonzero(y == 1)[:300]
    keep = np.delete(np.arange(1200), rows)
    done = model("logistic", method=method).fit(x, y)
    found = done.unlearn(rows=rows)
    assert found.alignment > 4
    assert "no random draw" in found.notes[0]
    assert distance(done, retrained("logistic", x[keep], y[keep])) > 1e-3
    assert done.repair().budget_spent < 1e-9
    want = retrained("logistic", x[keep], y[keep])
    np.testing.assert_allclose(weights(done), weights(want), atol=1e-8)
    done.unlearn(rows=[keep[0]], repair=True)
    want = retrained("logistic", x[keep[1:]], y[keep[1:]])
    np.testing.assert_allclose(weights(done), weights(want), atol=1e-8)


@pytest.mark.parametrize("method", ["newton_step", "infinitesimal_jackknife"])
def test_a_model_that_keeps_no_data_gives_the_same_answer(method):
    x, y = made("logistic")
    kept, bare = (model("logistic", method=method, keep_data=k).fit(x, y) for k in (True, False))
    assert not len(bare._risk.y)
    kept.unlearn(rows=[4, 8])
    bare.unlearn(rows=[4, 8], X=x[[4, 8]], y=y[[4, 8]])
    kept.unlearn(labels={9: 1 - y[9]})
    bare.unlearn(labels={9: 1 - y[9]}, X=x[[9]], y=y[[9]])
    assert np.array_equal(weights(kept), weights(bare))


def test_removed_rows_are_erased_from_the_models_own_copy_and_not_from_the_callers():
    x, y = made("logistic")
    given = x.copy()
    for form in (np.asarray, sparse):
        done = model("logistic").fit(form(given), y)
        done.unlearn(rows=[7])
        held = done._risk.x[[7]]
        assert abs(held).sum() == 0
    assert np.array_equal(given, x)
