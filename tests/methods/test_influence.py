"""Influence updates of features, labels and rows, against retraining in closed form."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.curvature_products import curvature_product
from unlearnkit.linalg.lissa import largest_eigenvalue, lissa

ROWS, COLUMNS, DECAY = 60, 5, 0.1
OFF = {"stop": "never", "floor": float("inf")}
EXACT = {"damping": 0.0, "tolerance": 1e-14, "iterations": 50, "share": 1e6, "guard": OFF}


def ridge_weights(x, y):
    """Minimise the mean squared error plus ``wd / 2 |w|^2``, by the normal equations."""
    left = 2 * x.T @ x / len(x) + DECAY * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(left, 2 * x.T @ y / len(x))


@pytest.fixture(scope="module")
def ridge():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, COLUMNS, generator=rng, dtype=torch.float64)
    y = x @ torch.randn(COLUMNS, 1, generator=rng, dtype=torch.float64)
    y += 0.3 * torch.randn(ROWS, 1, generator=rng, dtype=torch.float64)
    model = nn.Linear(COLUMNS, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(ridge_weights(x, y).T)
    case = uk.Case(train=(x, y), task="regression", recipe=uk.Recipe(weight_decay=DECAY))
    return model, case


def corrected(case, request):
    """Return what retraining trains on, made here by hand."""
    x, y = case.train.x.clone(), case.train.y.clone()
    if isinstance(request, uk.Features):
        x[:, list(request.features)] = 0
    elif isinstance(request, uk.Labels):
        for row, target in request.labels:
            y[row] = target
    else:
        stay = torch.ones(len(x), dtype=torch.bool)
        stay[list(request.rows)] = False
        x, y = x[stay], y[stay]
    return x, y


REQUESTS = [
    uk.Features(1),
    uk.Features(0, 3),
    uk.Labels({3: 5.0, 17: -2.0, 40: 0.5}),
    uk.Rows(range(20)),
    uk.Rows(7),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_second_order_equals_retraining_of_ridge_regression(ridge, request_):
    model, case = ridge
    done = uk.unlearn(model, case, request_, uk.method("influence_second", **EXACT))
    want = ridge_weights(*corrected(case, request_)).T
    torch.testing.assert_close(done.model.weight.detach(), want, rtol=0, atol=1e-8)
    assert (model.weight - want).abs().max() > 1e-3  # there was something to do


def test_a_removed_column_of_ridge_regression_has_no_weight(ridge):
    model, case = ridge
    done = uk.unlearn(model, case, uk.Features(2), uk.method("influence_second", **EXACT))
    assert abs(float(done.model.weight.detach()[0, 2])) < 1e-10


def logistic_problem():
    """Return an L2-logistic regression at its minimum, by Newton's method."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(400, 6, generator=rng, dtype=torch.float64)
    logits = x @ torch.randn(6, generator=rng, dtype=torch.float64)
    y = (torch.rand(400, generator=rng, dtype=torch.float64) < logits.sigmoid()).double()
    w = torch.zeros(6, dtype=torch.float64)
    for _ in range(30):
        w = w - torch.linalg.solve(hessian_of(x, w), gradient_of(x, y, w))
    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(w[None])
    recipe = uk.Recipe(weight_decay=DECAY)
    return x, y, model, uk.Case(train=(x, y[:, None]), task="multilabel", recipe=recipe)


def gradient_of(x, y, w):
    return x.T @ ((x @ w).sigmoid() - y) / len(x) + DECAY * w


def hessian_of(x, w):
    p = (x @ w).sigmoid()
    return (x * (p * (1 - p))[:, None]).T @ x / len(x) + DECAY * torch.eye(len(w), dtype=w.dtype)


def test_second_order_sends_a_removed_column_of_logistic_regression_to_zero():
    x, y, model, case = logistic_problem()
    edited = x.clone()
    edited[:, 2] = 0

    def residual(m):
        return float(gradient_of(edited, y, m.weight.detach()[0]).norm())

    second = uk.unlearn(model, case, uk.Features(2), uk.method("influence_second", **EXACT)).model
    first = uk.unlearn(model, case, uk.Features(2), uk.method("influence_first", guard=OFF)).model
    assert abs(float(second.weight.detach()[0, 2])) < 1e-10
    assert residual(second) * 10 < residual(first) < residual(model)
    # The curvature of the data before the request would leave the column a weight.
    w = model.weight.detach()[0]
    old = w - torch.linalg.solve(hessian_of(x, w), gradient_of(edited, y, w))
    assert abs(float(old[2])) > 1e-3


def test_the_step_equals_a_dense_newton_step():
    x, y, model, case = logistic_problem()
    edited = x.clone()
    edited[:, 0] = 0
    w = model.weight.detach()[0]
    want = w - torch.linalg.solve(hessian_of(edited, w), gradient_of(edited, y, w))
    done = uk.unlearn(model, case, uk.Features(0), uk.method("influence_second", **EXACT))
    torch.testing.assert_close(done.model.weight.detach()[0], want, rtol=0, atol=1e-9)


def test_first_order_takes_the_published_step(ridge):
    model, case = ridge
    rows, rate = (4, 9), 1e-3
    done = uk.unlearn(
        model, case, uk.Rows(rows), uk.method("influence_first", rate=rate, guard=OFF)
    )
    x, y, w = case.train.x, case.train.y, model.weight.detach()
    total = torch.zeros_like(w)
    for i in rows:
        total -= 2 * (x[i] @ w[0] - y[i]) * x[i] + DECAY * w
    torch.testing.assert_close(done.model.weight.detach(), w - rate * total, rtol=0, atol=1e-12)


def test_the_rate_found_minimises_the_quadratic_along_the_gradient(ridge):
    model, case = ridge
    request = uk.Labels({3: 5.0, 17: -2.0})
    done = uk.unlearn(model, case, request, uk.method("influence_first", guard=OFF))
    x, y = corrected(case, request)
    start, moved = model.weight.detach(), done.model.weight.detach()

    def loss(t):
        w = start + t * (moved - start)
        return float(((x @ w.T - y) ** 2).mean() + DECAY / 2 * (w**2).sum())

    assert loss(1.0) < min(loss(0.9), loss(1.1))  # squared loss: the model of second order is exact


@pytest.mark.parametrize("method", ["influence_first", "influence_second"])
def test_nothing_moves_at_rate_zero_or_without_affected_curvature(ridge, method):
    model, case = ridge
    setting = {"rate": 0.0} if method == "influence_first" else {"damping": 1e12}
    done = uk.unlearn(model, case, uk.Features(1), uk.method(method, **setting))
    torch.testing.assert_close(done.model.weight, model.weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", ["lissa", "ekfac"])
def test_other_solvers_come_near_the_exact_step(ridge, solver):
    model, case = ridge
    settings = EXACT | {"solver": solver, "iterations": 400, "batch_size": ROWS}
    settings |= {"tolerance": 1e-6} if solver == "lissa" else {}
    done = uk.unlearn(model, case, uk.Features(1), uk.method("influence_second", **settings))
    want = ridge_weights(*corrected(case, uk.Features(1))).T
    before = (model.weight.detach() - want).norm()
    after = (done.model.weight.detach() - want).norm()
    assert float(after) < (0.02 if solver == "lissa" else 0.6) * float(before)


def random_matrices(count):
    rng = torch.Generator().manual_seed(2)
    roots = torch.randn(count, 8, 8, generator=rng, dtype=torch.float64)
    return roots @ roots.mT / 8


def test_lissa_ends_at_the_damped_inverse():
    (matrix,) = random_matrices(1)
    right = torch.arange(8, dtype=torch.float64)
    top = float(torch.linalg.eigvalsh(matrix)[-1])
    found = lissa(
        [lambda v: {"w": matrix @ v["w"]}],
        {"w": right},
        damping=0.05,
        scale=0.7 * (top + 0.05),
        iterations=5000,
        tolerance=1e-15,
    )
    want = torch.linalg.solve(matrix + 0.05 * torch.eye(8, dtype=torch.float64), right)
    torch.testing.assert_close(found.vector["w"], want, rtol=1e-9, atol=1e-9)
    assert found.residual < 1e-9


def test_lissa_says_that_it_diverges():
    (matrix,) = random_matrices(1)
    top = float(torch.linalg.eigvalsh(matrix)[-1])
    with pytest.raises(uk.UnlearnkitError, match="diverged"):
        lissa(
            [lambda v: {"w": matrix @ v["w"]}],
            {"w": torch.ones(8, dtype=torch.float64)},
            damping=0.0,
            scale=top / 4,
            iterations=1000,
        )


def test_power_iteration_finds_the_largest_eigenvalue():
    (matrix,) = random_matrices(1)
    rng = torch.Generator().manual_seed(0)
    top = largest_eigenvalue(
        lambda v: {"w": matrix @ v["w"]},
        {"w": torch.zeros(8, dtype=torch.float64)},
        lambda t: torch.randn(t.shape, generator=rng, dtype=torch.float64),
        steps=200,
    )
    assert top == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-6)


def test_the_step_solves_the_system_of_a_network():
    """Not only linear models: the step of a perceptron solves its own damped system."""
    rng = torch.Generator().manual_seed(3)
    x, y = torch.randn(80, 4, generator=rng), torch.randint(3, (80,), generator=rng)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    case = uk.Case(train=(x.double(), y), task="classification", recipe=uk.Recipe())
    settings = EXACT | {"damping": 0.1, "iterations": 200}
    done = uk.unlearn(model, case, uk.Rows(0, 1, 2), uk.method("influence_second", **settings))
    step = {
        n: a.detach() - b.detach()
        for (n, a), b in zip(model.named_parameters(), done.model.parameters(), strict=True)
    }
    task, parts = case.task, case.partition(uk.Rows(0, 1, 2))
    bent = curvature_product(model, parts.retain, task, Runtime(), step)
    batch = next(parts.forget.batches(3, Runtime()))
    loss = task.losses(task.outputs(model, batch), batch).sum()
    slope = torch.autograd.grad(loss, list(model.parameters()))
    for (n, s), g in zip(step.items(), slope, strict=True):
        torch.testing.assert_close(bent[n] + 0.1 * s, -g / 77, rtol=1e-6, atol=1e-9)
