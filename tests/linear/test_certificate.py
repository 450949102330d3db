"""Budgets: accounting, refusals, and the density ratio that a certificate promises."""

import json

import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit
from scipy.stats import norm

from tests.linear.problems import METHODS, made, model, weights
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.linear import NeedsRetrain, RemovableGLM, RemovalBudget
from unlearnkit.linear.gaussian_accounting import (
    gaussian_delta,
    gaussian_epsilon,
    shift_of,
    sigma_of,
)
from unlearnkit.linear.losses import LOGISTIC_THIRD, SquaredLoss
from unlearnkit.linear.noise import gaussian_noise


def budget(**changes):
    given = {
        "epsilon": 1.0, "delta": 1e-4, "sigma": 1.0, "perturbation": "objective", "noise": 7,
        "row_norm": 1.0,
    }  # fmt: skip
    return RemovalBudget(**(given | changes))


def certified(kind="logistic", alpha=5.0, method="newton_removal", **changes):
    settings = {"fit_intercept": False, "method": method, "budget": budget(**changes)}
    return model(kind, alpha, **settings)


@pytest.mark.parametrize("accounting", ["analytic", "classical"])
@pytest.mark.parametrize("epsilon", [0.1, 0.9])
@pytest.mark.parametrize("delta", [1e-6, 1e-2])
def test_noise_and_shift_are_inverse(accounting, epsilon, delta):
    sigma = sigma_of(0.3, epsilon, delta, accounting)
    assert shift_of(sigma, epsilon, delta, accounting) == pytest.approx(0.3, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0])
def test_delta_is_the_integral_of_what_one_density_exceeds(epsilon):
    ratio = 0.8
    excess = lambda t: max(norm.pdf(t, ratio) - np.exp(epsilon) * norm.pdf(t), 0.0)  # noqa: E731
    edge = ratio / 2 + epsilon / ratio
    want = integrate.quad(excess, edge, edge + 12, epsabs=1e-14)[0]
    assert gaussian_delta(ratio, epsilon) == pytest.approx(want, rel=1e-6)
    assert gaussian_epsilon(ratio, want) == pytest.approx(epsilon, rel=1e-6)


def test_the_analytic_budget_is_larger_than_the_classical_one():
    assert shift_of(1, 1, 1e-4, "analytic") > 1.1 * shift_of(1, 1, 1e-4, "classical")
    with pytest.raises(InputError, match="epsilon of at most 1, got 2"):
        shift_of(1, 2, 1e-4, "classical")


def test_noise_is_standard_normal_and_a_seed_repeats_it():
    drawn = gaussian_noise("system", "x", (20000,))
    assert abs(drawn.mean()) < 5 / np.sqrt(20000)
    assert abs(drawn.std() - 1) < 5 / np.sqrt(40000)
    assert not np.array_equal(drawn, gaussian_noise("system", "x", (20000,)))
    one = gaussian_noise(3, "x", (4, 5))
    assert np.array_equal(one, gaussian_noise(3, "x", (4, 5)))
    assert not np.array_equal(one, gaussian_noise(3, "y", (4, 5)))
    assert not np.array_equal(one, gaussian_noise(4, "x", (4, 5)))
    assert gaussian_noise(3, "x", (2,))[0] == pytest.approx(0.81838645, abs=5e-9)


def test_the_noise_is_in_the_gradient_of_the_data():
    x, y = made("logistic")
    done = certified().fit(x, y)
    w = done.coef_[0]
    tilt = -(x.T @ (expit(x @ w) - y) + 5.0 * w)
    np.testing.assert_allclose(tilt, gaussian_noise(7, "tilt/0", (1, 6))[0], atol=1e-9)
    assert done.gradient_residual_norm() < 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("perturbation", ["objective", "output"])
def test_retraining_is_due_exactly_when_the_budget_is_spent(method, perturbation):
    x, y = made("logistic", rows=400)
    plain = model("logistic", 5.0, method=method, fit_intercept=False)
    sigma = {"objective": 0.05, "output": 0.01}[perturbation]
    done = certified(method=method, perturbation=perturbation, sigma=sigma).fit(x, y)
    if perturbation == "output":
        plain.fit(x, y)
    scale = 1.0 if perturbation == "objective" else 5.0
    limit = scale * shift_of(sigma, 1.0, 1e-4, "analytic")
    served = 0
    for row in range(400):
        before = weights(done)
        try:
            found = done.unlearn(rows=[row])
        except NeedsRetrain:
            break
        served += 1
        assert found.budget == pytest.approx(limit)
        assert found.budget_spent + found.budget_left == pytest.approx(limit)
        assert 0 <= found.budget_spent <= limit
        assert found.epsilon <= 1.0
        assert done.gradient_residual_norm() <= found.budget_spent
    assert 0 < served < 399
    assert np.array_equal(weights(done), before)
    assert done.certificate().rows == served
    again = certified(method=method, perturbation=perturbation, sigma=1e6).fit(x, y)
    if perturbation == "objective":
        again._state = done._state
        again._risk = done._risk
        again._release(done._state)
        assert again.unlearn(rows=[row]).budget_spent > limit


def test_the_bounds_of_a_sequence_add_up():
    x, y = made("logistic", rows=400)
    done = certified(sigma=10.0).fit(x, y)
    spent = [done.unlearn(rows=[row]).budget_spent for row in range(20)]
    steps = np.diff([0.0, *spent])
    assert (steps > 0).all()
    alone = certified(sigma=10.0).fit(x, y).unlearn(rows=[0]).budget_spent
    assert spent[0] == alone


def test_after_the_budget_a_retrained_model_has_fresh_noise_and_a_fresh_account():
    x, y = made("logistic", rows=400)
    done = certified(sigma=0.05).fit(x, y)
    with pytest.raises(NeedsRetrain, match="nothing has changed: call retrain with the same"):
        done.unlearn(rows=range(200))
    old = done._state.tilt
    assert done.retrain(rows=range(200)).certificate().budget_spent < 1e-9
    assert not np.array_equal(done._state.tilt, old)
    assert done.certificate().rows == 200
    w = done.coef_[0]
    gradient = x[200:].T @ (expit(x[200:] @ w) - y[200:]) + 5.0 * w + done._state.tilt[0]
    assert np.linalg.norm(gradient) < 1e-9
    with pytest.raises(InputError, match="row 3 is removed already"):
        done.unlearn(rows=[3])


def test_a_spent_budget_is_repaired_by_choice():
    x, y = made("logistic", rows=400)
    done = certified(sigma=0.05).fit(x, y)
    with pytest.raises(NeedsRetrain):
        done.unlearn(rows=range(200))
    assert done.unlearn(rows=range(200), repair=True).budget_spent < 1e-9


def test_each_output_release_has_noise_of_its_own_and_the_sequence_composes():
    x, y = made("logistic", rows=400)
    done = certified(method="newton_step", perturbation="output", sigma=1.0).fit(x, y)
    seen = [done._released - done._state.w]
    for row in range(3):
        found = done.unlearn(rows=[row])
        seen.append(done._released - done._state.w)
    assert len({float(s[0, 0]) for s in seen}) == 4
    ratios = np.array(done._state.history) / 5.0
    want = gaussian_epsilon(float(np.sqrt((ratios**2).sum())), 1e-4)
    assert found.epsilon_sequence == pytest.approx(want)
    assert found.epsilon_sequence >= found.epsilon


def test_a_measured_charge_is_the_residual():
    x, y = made("logistic", rows=400)
    done = certified(charge="measured", sigma=5.0).fit(x, y)
    found = done.unlearn(rows=range(30))
    assert found.budget_spent == pytest.approx(done.gradient_residual_norm(), rel=1e-9)
    assert any("measured on the data" in a for a in found.assumptions)


def test_the_certificate_names_guarantee_and_assumptions_and_survives_json():
    x, y = made("logistic", rows=400)
    found = certified(sigma=5.0).fit(x, y).unlearn(rows=[1])
    assert found.evidence == "certified"
    assert "factor exp(1)" in found.guarantee
    text = " ".join(found.assumptions)
    for words in ("convex", "alpha", "one release", "recorded seed", "no row is longer than 1"):
        assert words in text
    assert type(found).model_validate(json.loads(found.model_dump_json())) == found


def trained(x, y, b, alpha):
    """Return the minimisers of d=1 logistic problems with many tilts.

    The gradient falls with the weight, so that the tilt of each weight on a grid inverts by
    interpolation; two Newton steps make it exact.
    """
    values, inverse = np.unique(x, return_inverse=True)
    count, pull = np.bincount(inverse), x @ y
    slope = lambda w: expit(np.outer(w, values)) @ (count * values) - pull + alpha * w  # noqa: E731
    grid = np.linspace(-20, 20, 4001)
    w = np.interp(-b, slope(grid), grid)
    for _ in range(3):
        p = expit(np.outer(w, values))
        w = w - (slope(w) + b) / ((p * (1 - p)) @ (count * values**2) + alpha)
    return w


SIGMA, ALPHA, REMOVED = 1.0, 4.0, 4


@pytest.fixture(scope="module")
def audit():
    """Return 10^5 trainings with fresh noise before removal, after it, and on the rest alone."""
    rng = np.random.default_rng(0)
    x = rng.choice(np.linspace(-1, 1, 8), 400)
    y = (rng.random(400) < expit(3 * x)).astype(float)
    x[:REMOVED], y[:REMOVED] = 1.0, 0.0
    tilt, *others = (SIGMA * gaussian_noise(k, "audit", (100_000,)) for k in range(3))
    w = trained(x, y, tilt, ALPHA)
    keep = x[REMOVED:]
    values, count = np.unique(keep, return_counts=True)
    p = expit(np.outer(w, values))
    pull = (expit(np.outer(w, x[:REMOVED])) - y[:REMOVED]) @ x[:REMOVED]
    step = pull / ((p * (1 - p)) @ (count * values**2) + ALPHA)
    bound = LOGISTIC_THIRD / 2 * np.linalg.norm(keep) * np.sqrt((keep**4).sum()) * step**2
    again, fresh = (trained(keep, y[REMOVED:], b, ALPHA) for b in others)
    return x, y, tilt, w, w + step, bound, again, fresh


def log_ratios(one, other):
    """Return log-ratios of two samples in bins of the bulk, and four standard errors."""
    edges = np.quantile(other, np.linspace(0.01, 0.99, 30))
    a, c = (np.maximum(np.histogram(s, edges)[0], 0.5) for s in (one, other))
    return abs(np.log(a / c)), 4 * np.sqrt(1 / a + 1 / c)


def test_the_audited_mechanism_is_that_of_the_model(audit):
    x, y, _, _, _, bound, _, _ = audit
    one = certified(alpha=ALPHA, epsilon=50.0).fit(x[:, None], y.astype(int))
    tilt = gaussian_noise(7, "tilt/0", (1, 1))[0]
    w = trained(x, y, tilt, ALPHA)[0]
    assert one.coef_[0, 0] == pytest.approx(w, abs=1e-9)
    keep, gone = x[REMOVED:], x[:REMOVED]
    p = expit(w * keep)
    step = (expit(w * gone) - y[:REMOVED]) @ gone / ((p * (1 - p)) @ keep**2 + ALPHA)
    found = one.unlearn(rows=range(REMOVED))
    assert one.coef_[0, 0] == pytest.approx(w + step, abs=1e-9)
    assert bound.min() < found.budget_spent < bound.max()


def test_the_density_ratio_is_within_epsilon_when_the_budget_pays_for_every_draw(audit):
    *_, w, unlearned, bound, again, _ = audit
    epsilon = gaussian_epsilon(bound.max() / SIGMA, 1e-3)
    ratio, error = log_ratios(unlearned, again)
    assert (ratio <= epsilon + error).all()
    assert log_ratios(w, again)[0].max() > 2 * epsilon


def test_a_budget_that_runs_out_for_some_draws_breaks_the_ratio_as_the_certificate_warns(audit):
    x, y, *_, unlearned, bound, again, fresh = audit
    limit = np.quantile(bound, 0.9)
    mixed = np.where(bound <= limit, unlearned, fresh)
    ratio, error = log_ratios(mixed, again)
    assert (ratio > gaussian_epsilon(limit / SIGMA, 1e-3) + error).any()
    found = certified(alpha=ALPHA, epsilon=50.0).fit(x[:, None], y.astype(int)).certificate()
    assert any("runs out for some draws" in a for a in found.assumptions)


def test_a_uniform_charge_is_the_same_for_every_draw_and_at_least_every_bound(audit):
    x, y, _, _, _, bound, _, _ = audit
    spent = set()
    for seed in range(3):
        one = certified(alpha=ALPHA, sigma=1e4, charge="uniform", noise=seed)
        one.fit(x[:, None], y.astype(int))
        found = one.unlearn(rows=range(REMOVED))
        spent.add(round(found.budget_spent, 6))
        assert not any("runs out for some draws" in a for a in found.assumptions)
    assert len(spent) == 1
    assert spent.pop() >= bound.max()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("logistic", {"method": "newton_step"}, "bounds steps of newton_removal, got newton_step"),
        ("poisson", {}, "PoissonLoss has no bounded slope"),
    ],
)
def test_a_uniform_charge_without_a_bound_is_refused(kind, settings, message):
    x, y = made(kind)
    with pytest.raises(UnlearnkitError, match=message):
        certified(kind, charge="uniform", **settings).fit(x, y)


class Sigmoid(SquaredLoss):
    """A loss that flattens: not convex."""

    convex = False


def test_a_loss_that_is_not_convex_gets_no_certificate():
    x, y = made("ridge")
    asked = RemovableGLM(Sigmoid(), 1.0, fit_intercept=False, budget=budget())
    with pytest.raises(UnsupportedError, match=r"Sigmoid is not convex.*choose a convex loss"):
        asked.fit(x, y)
    RemovableGLM(Sigmoid(), 1.0).fit(x, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit_intercept": True}, "penalty in every direction; set penalize_intercept=True"),
        ({"alpha": 0.0}, "strongly convex objective, got alpha 0; set alpha above 0"),
        ({"l1_ratio": 0.5}, "no certificate is known for an absolute penalty; set l1_ratio=0"),
    ],
)
def test_a_problem_without_certificate_is_refused(settings, message):
    x, y = made("logistic")
    with pytest.raises(UnlearnkitError, match=message):
        certified().set_params(**settings).fit(x, y)


def test_rows_outside_the_norm_bound_are_refused_or_rescaled_by_choice():
    x, y = made("logistic")
    x[5] *= 9 / np.linalg.norm(x[5])
    with pytest.raises(InputError, match=r"1 rows are longer than 1,.*the longest has 9; scale"):
        certified().fit(x, y)
    done = certified(rows_outside="rescale").fit(x, y)
    x[5] /= 9
    want = certified().fit(x, y)
    np.testing.assert_allclose(weights(done), weights(want), atol=1e-10)
    far = np.ones((1, 6)) * 50
    near = far / np.linalg.norm(far)
    np.testing.assert_allclose(done.decision_function(far), done.decision_function(near))


def test_an_intercept_takes_its_part_of_the_norm_bound():
    x, y = made("logistic")
    tight = certified(row_norm=1.4).set_params(fit_intercept=True, penalize_intercept=True)
    with pytest.raises(InputError, match=r"what the budget's row_norm of 1.4 leaves"):
        tight.fit(x, y)
    tight.set_params(budget=budget(row_norm=np.sqrt(2))).fit(x, y)
    assert tight.unlearn(rows=[0]).evidence == "certified"


def test_a_budget_needs_its_noise_source_by_name():
    with pytest.raises(InputError, match="noise: field required"):
        RemovalBudget(epsilon=1, delta=1e-4, sigma=1, perturbation="objective")


def test_a_budget_below_the_solvers_own_residual_is_spent_at_once():
    x, y = made("logistic")
    with pytest.raises(NeedsRetrain):
        certified(sigma=1e-20).fit(x, y)


def test_ridge_with_output_noise_stays_exact_below_it():
    x, y = made("ridge")
    done = certified("ridge", method="newton_step", perturbation="output", sigma=0.1).fit(x, y)
    found = done.unlearn(rows=range(50))
    assert found.evidence == "exact"
    assert found.epsilon == pytest.approx(0, abs=1e-9)
    want = model("ridge", 5.0, fit_intercept=False).fit(x[50:], y[50:])
    np.testing.assert_allclose(done._state.w[0], want.coef_, atol=1e-9)
    assert not np.allclose(done.coef_, want.coef_, atol=1e-3)
