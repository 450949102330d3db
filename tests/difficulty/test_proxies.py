"""Proxies of memorisation from one trained model: against closed forms, dense matrices, retraining.

What they are for is tested on rows with planted wrong labels, which can only be known by heart,
against models that were trained without each row.
"""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from torch import nn

from unlearnkit.cases.hard_forget_sets import memorisation
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.curvature import curvature
from unlearnkit.difficulty.holdout_retraining import hold_out
from unlearnkit.difficulty.self_influence import self_influence
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

RNG = np.random.default_rng(0)
N, D, C = 12, 5, 3
X, Y = RNG.normal(size=(N, D)), RNG.integers(0, C, N)
TASK = Classification(C)


def linear(seed=0):
    rng = np.random.default_rng(seed)
    net = nn.Linear(D, C).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(rng.normal(size=(C, D))))
        net.bias.copy_(torch.tensor(rng.normal(size=C)))
    return net


def view(x=X, y=Y):
    return View.all(TensorData(torch.tensor(x), torch.tensor(y)))


def by_numpy(net, x):
    w, b = net.weight.detach().numpy(), net.bias.detach().numpy()
    p = softmax(x @ w.T + b, 1)
    return w, p, (p - np.eye(C)[Y]) @ w


@pytest.mark.parametrize("reach", [1e-3, 0.1, 2.0])
def test_curvature_is_the_change_of_the_gradient_along_its_signs(reach):
    net = linear()
    _, _, slope = by_numpy(net, X)
    way = np.sign(slope) / np.sqrt(D)
    want = np.linalg.norm(by_numpy(net, X + reach * way)[2] - slope, axis=1) / reach
    found = curvature(net, view(), TASK, Runtime(), reach=reach, batch_size=5)
    np.testing.assert_allclose(found, want, rtol=1e-8)


def test_for_a_short_step_it_is_the_hessian_times_that_direction():
    net = linear()
    w, p, slope = by_numpy(net, X)
    way = np.sign(slope) / np.sqrt(D)
    bends = [w.T @ (np.diag(q) - np.outer(q, q)) @ w for q in p]
    want = [np.linalg.norm(h @ v) for h, v in zip(bends, way, strict=True)]
    found = curvature(net, view(), TASK, Runtime(), reach=1e-6)
    np.testing.assert_allclose(found, want, rtol=1e-4)


def test_a_loss_that_is_flat_does_not_bend():
    net = linear()
    nn.init.zeros_(net.weight)
    assert curvature(net, view(), TASK, Runtime()).tolist() == [0.0] * N


def test_reading_it_is_metered_and_leaves_the_model_as_it_was():
    net, rt = linear().train(), Runtime()
    curvature(net, view(), TASK, rt)
    assert (rt.cost.forward, rt.cost.backward) == (2 * N, 2 * N)
    assert all(p.grad is None for p in net.parameters())
    assert net.training


def test_words_have_no_input_to_step_along():
    tokens = View.all(TensorData(torch.zeros(N, 4, dtype=torch.long), torch.tensor(Y)))
    assert curvature(nn.Identity(), tokens, TASK, Runtime()) is None


def kl(p, q):
    return rel_entr(p, q).sum(1)


def test_hold_out_is_the_divergence_after_a_step_on_rows_never_seen():
    net, x = linear(), RNG.normal(size=(8, D))
    y = RNG.integers(0, C, 8)
    own = Recipe(lr=0.4, momentum=0.0, epochs=30, batch_size=8)
    found = hold_out(net, view(), view(x, y), TASK, own, Runtime())
    w, b = net.weight.detach().numpy(), net.bias.detach().numpy()
    gap = softmax(x @ w.T + b, 1) - np.eye(C)[y]
    after = softmax(X @ (w - 0.2 * gap.T @ x / 8).T + b - 0.2 * gap.mean(0), 1)
    before = softmax(X @ w.T + b, 1)
    np.testing.assert_allclose(found, kl(after, before) + kl(before, after), rtol=1e-9)


def test_hold_out_leaves_the_model_and_the_global_generator_alone():
    net, state = linear(), torch.get_rng_state()
    before = [p.detach().clone() for p in net.parameters()]
    first = hold_out(net, view(), view(), TASK, Recipe(epochs=2), Runtime(), epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    again = hold_out(net, view(), view(), TASK, Recipe(epochs=2), Runtime(), epochs=2)
    assert torch.equal(first, again)


def test_hold_out_and_curvature_take_real_targets():
    case = toy_case(Regression())
    rows, rt = View.all(case.train), Runtime()
    model = case.fresh()
    moved = hold_out(model, rows, View.all(case.test), case.task, case.recipe, rt)
    bent = curvature(model, rows, case.task, rt)
    assert moved.shape == bent.shape == (60,)
    assert bool((moved >= 0).all() & (bent >= 0).all())


def head(seed=0):
    phi = torch.tensor(np.random.default_rng(seed).normal(size=(N, D)))
    return phi, linear(seed + 1)(phi).detach().log_softmax(1), torch.tensor(Y)


@pytest.mark.parametrize("damping", [1e-6, 1e-2, 1.0])
def test_self_influence_is_the_quadratic_form_of_the_dense_matrix(damping):
    phi, log_p, y = head()
    ones, p = np.c_[phi.numpy(), np.ones(N)], log_p.exp().numpy()
    a = ones.T @ ones / N
    b = np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)
    a, b = (m + np.sqrt(damping) * np.trace(m) / len(m) * np.eye(len(m)) for m in (a, b))
    grads = [np.kron(r, f) for r, f in zip(p - np.eye(C)[y.numpy()], ones, strict=True)]
    want = [g @ np.linalg.solve(np.kron(b, a), g) / N for g in grads]
    np.testing.assert_allclose(self_influence(phi, log_p, y, damping=damping), want, rtol=1e-8)


def test_sure_answers_have_no_influence_and_no_curvature_is_no_error():
    phi, _, y = head()
    sure = torch.where(nn.functional.one_hot(y, C) > 0, 0.0, -torch.inf).double()
    assert self_influence(phi, sure, y).tolist() == [0.0] * N


def test_it_orders_rows_as_leaving_each_out_and_fitting_again_does():
    x = RNG.normal(size=(40, 4))
    y = (x[:, 0] + 0.8 * RNG.normal(size=40) > 0).astype(int)
    line = LogisticRegression(C=10.0, tol=1e-10)
    log_p = line.fit(x, y).predict_log_proba(x)
    rises = []
    for i in range(40):
        keep = np.arange(40) != i
        without = LogisticRegression(C=10.0, tol=1e-10).fit(x[keep], y[keep])
        rises.append(log_p[i, y[i]] - without.predict_log_proba(x[i : i + 1])[0, y[i]])
    found = self_influence(*map(torch.tensor, (x, log_p, y)))
    assert spearmanr(found, rises).statistic > 0.95


@pytest.fixture(scope="module")
def known_by_heart():
    """Return a case with wrong labels on six rows, and its leave-out estimate."""
    case = toy_case(Classification(3))
    wrong = (case.train.y + (torch.arange(60) < 6)) % 3
    recipe = case.recipe.model_copy(update={"epochs": 60, "lr": 0.2})
    case = case.replace(train=case.train.with_targets(wrong), recipe=recipe)
    return case, memorisation(case, "leave_out")


@pytest.mark.parametrize(
    ("by", "least"),
    [("confidence", 0.7), ("curvature", 0.5), ("hold_out", 0.5), ("influence", 0.6)],
)
def test_each_score_ranks_rows_as_the_leave_out_estimate_does(known_by_heart, by, least):
    case, estimate = known_by_heart
    assert spearmanr(memorisation(case, by), estimate).statistic > least


@pytest.mark.parametrize("damping", [1e-6, 1e-2, 1.0])
def test_self_influence_of_more_classes_than_rows_is_that_of_the_dense_matrix(damping, monkeypatch):
    monkeypatch.setattr("unlearnkit.difficulty.self_influence.BLOCK", 7)
    rng = torch.Generator().manual_seed(3)
    rows, classes = 9, 30
    phi = torch.randn(rows, 4, generator=rng, dtype=torch.float64)
    log_p = torch.randn(rows, classes, generator=rng, dtype=torch.float64).log_softmax(1)
    y = torch.randint(0, classes, (rows,), generator=rng)
    ones, p = np.c_[phi.numpy(), np.ones(rows)], log_p.exp().numpy()
    a = ones.T @ ones / rows
    b = np.diag(p.mean(0)) - p.T @ p / rows
    a, b = (m + np.sqrt(damping) * np.trace(m) / len(m) * np.eye(len(m)) for m in (a, b))
    grads = [np.kron(r, f) for r, f in zip(p - np.eye(classes)[y.numpy()], ones, strict=True)]
    want = [g @ np.linalg.solve(np.kron(b, a), g) / rows for g in grads]
    np.testing.assert_allclose(self_influence(phi, log_p, y, damping=damping), want, rtol=1e-8)
