"""Curvature products and conjugate gradients against dense matrices, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.conjugate_gradient import conjugate_gradient
from unlearnkit.linalg.curvature_products import (
    curvature_matrix,
    curvature_product,
    flatten,
    unflatten,
)
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

ROWS = 9


def perceptron():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)), (4,), Classification(3)


def convolution():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net, (1, 3, 3), Classification(3)


def regression():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,), Regression(2)


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net, shape, task = make()
        x = torch.randn(ROWS, *shape, dtype=torch.float64)
        y = torch.arange(ROWS) % 3
        if isinstance(task, Regression):
            y = torch.randn(ROWS, 2, dtype=torch.float64)
    return net.double().train(), View.all(TensorData(x, y)), task


def dense(net, view, task, kind):
    """The matrix from whole Jacobians and Hessians of flat parameters, by reverse mode alone."""
    params = dict(net.named_parameters())
    (batch,) = view.batches(ROWS, Runtime())
    net.eval()

    def outputs(flat):
        return functional_call(net, unflatten(flat, params), (batch.x,))

    flat = flatten({n: p.detach() for n, p in params.items()}, params)
    auto = torch.autograd.functional
    if kind == "hessian":
        found = auto.hessian(lambda f: task.losses(outputs(f), batch).mean(), flat)
    elif kind == "empirical_fisher":
        rows = auto.jacobian(lambda f: task.losses(outputs(f), batch), flat)
        found = rows.mT @ rows / ROWS
    else:
        j = auto.jacobian(outputs, flat).flatten(0, 1)
        h = auto.hessian(
            lambda o: task.losses(o.view(ROWS, -1), batch).mean(), outputs(flat).detach().flatten()
        )
        found = j.mT @ h @ j
    net.train()
    return found


@pytest.mark.parametrize("kind", ["gauss_newton", "hessian", "empirical_fisher"])
@pytest.mark.parametrize("make", [perceptron, convolution, regression])
def test_products_are_those_of_the_dense_matrix(make, kind):
    net, view, task = built(make)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    want = dense(net, view, task, kind)
    params = dict(net.named_parameters())
    v = torch.randn(len(want), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vector = unflatten(v, params)
    got = curvature_product(net, view, task, Runtime(), vector, kind=kind, batch_size=4)
    torch.testing.assert_close(flatten(got, params), want @ v, rtol=1e-10, atol=1e-12)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_some_layers_alone_give_their_block():
    net, view, task = built(perceptron)
    want = dense(net, view, task, "hessian")
    got = curvature_matrix(net, view, task, Runtime(), kind="hessian", only=["2.weight", "2.bias"])
    torch.testing.assert_close(got, want[15:, 15:], rtol=1e-10, atol=1e-12)


def test_single_precision_is_summed_and_returned_in_single_precision():
    net, view, task = built(perceptron)
    net.bfloat16()
    v = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    got = curvature_product(net, view, task, Runtime(), v)
    assert {t.dtype for t in got.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "forward", "backward"),
    [("gauss_newton", 4, 1), ("empirical_fisher", 4, 1), ("hessian", 1, 3)],
)
def test_a_product_counts_its_rows(kind, forward, backward):
    net, view, task = built(perceptron)
    rt = Runtime()
    ones = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    curvature_product(net, view, task, rt, ones, kind=kind)
    assert (rt.cost.forward, rt.cost.backward) == (forward * ROWS, backward * ROWS)


class Recurrent(nn.Module):
    """An LSTM, which has no forward derivatives on a processor, and a head."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize("kind", ["gauss_newton", "empirical_fisher"])
def test_layers_without_forward_derivatives_have_products_by_reverse_mode(kind):
    rng = torch.Generator().manual_seed(0)
    net, task, rt = Recurrent(), Classification(3), Runtime()
    x, y = torch.randn(5, 4, 2, generator=rng), torch.arange(5) % 3
    view = View.all(TensorData(x, y))
    v = {n: torch.randn(p.shape, generator=rng) for n, p in net.named_parameters()}
    got = curvature_product(net, view, task, rt, v, kind=kind)
    assert (rt.cost.forward, rt.cost.backward) == (5, 15)
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for i in range(5):
        out = net(x[i : i + 1])[0]
        own = -torch.nn.functional.one_hot(y[i], 3) + out.softmax(0)
        p = out.softmax(0).detach()
        bend = p.diag() - p[:, None] * p if kind == "gauss_newton" else own[:, None] * own
        rows = [torch.autograd.grad(o, net.parameters(), retain_graph=True) for o in out]
        jacobian = torch.stack([torch.cat([t.flatten() for t in row]) for row in rows])
        along = torch.cat([v[n].flatten() for n, _ in net.named_parameters()])
        flat = jacobian.mT @ bend.detach() @ jacobian @ along / 5
        for n, part in zip(want, flat.split([t.numel() for t in want.values()]), strict=True):
            want[n] += part.view_as(want[n])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ({"0.weight": torch.ones(2, 2)}, r"'0.weight' has shape \(2, 2\), the model has \(3, 4\)"),
        ({"9.weight": torch.ones(2)}, "the model has None"),
        ({}, "is empty"),
    ],
)
def test_a_vector_of_another_model_is_refused(vector, says):
    net, view, task = built(perceptron)
    with pytest.raises(InputError, match=says):
        curvature_product(net, view, task, Runtime(), vector)


def test_no_rows_are_refused():
    net, view, task = built(perceptron)
    none = view.pick(torch.arange(0))
    with pytest.raises(InputError, match="no rows"):
        curvature_product(net, none, task, Runtime(), {"0.bias": torch.ones(3)})


def test_a_matrix_that_does_not_fit_is_refused():
    net = nn.Linear(5000, 3)
    with pytest.raises(InputError, match=r"15003 parameters are too many \(limit 4096\)"):
        curvature_matrix(net, built(perceptron)[1], Classification(3), Runtime())


def system(size=12, rank=12):
    rng = torch.Generator().manual_seed(2)
    a = torch.randn(size, rank, dtype=torch.float64, generator=rng)
    return a @ a.mT, torch.randn(size, dtype=torch.float64, generator=rng)


def as_product(matrix):
    return lambda v: {"a": matrix @ v["a"]}


@pytest.mark.parametrize("rank", [3, 12])
def test_conjugate_gradient_solves_what_a_direct_solver_does(rank):
    matrix, b = system(rank=rank)
    got = conjugate_gradient(
        as_product(matrix), {"a": b}, damping=0.1, tolerance=1e-11, iterations=50
    )
    want = torch.linalg.solve(matrix + 0.1 * torch.eye(12, dtype=torch.float64), b)
    torch.testing.assert_close(got.vector["a"], want, rtol=1e-8, atol=1e-10)
    assert got.converged
    assert got.iterations <= (rank + 1) + 6  # in exact arithmetic: distinct eigenvalues


def test_the_residual_is_that_of_the_solution():
    matrix, b = system()
    got = conjugate_gradient(as_product(matrix), {"a": b}, damping=0.1, iterations=3)
    gap = b - (matrix + 0.1 * torch.eye(12, dtype=torch.float64)) @ got.vector["a"]
    assert got.iterations == 3
    assert not got.converged
    assert got.residual == pytest.approx(float(gap.norm() / b.norm()), rel=1e-10)


def test_the_inverse_as_preconditioner_needs_one_step():
    matrix, b = system()
    inverse = torch.linalg.inv(matrix + 0.1 * torch.eye(12, dtype=torch.float64))
    got = conjugate_gradient(
        as_product(matrix), {"a": b}, damping=0.1, precondition=as_product(inverse)
    )
    assert got.converged
    assert got.iterations == 1


def test_a_singular_system_is_refused():
    b = torch.tensor([0.0, 1.0], dtype=torch.float64)
    matrix = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    with pytest.raises(InputError, match="singular or indefinite at damping 0; raise the damping"):
        conjugate_gradient(as_product(matrix), {"a": b}, damping=0.0)


def test_a_right_side_of_zeros_needs_no_step():
    got = conjugate_gradient(as_product(system()[0]), {"a": torch.zeros(12)}, damping=1.0)
    assert (got.iterations, got.residual, got.converged) == (0, 0.0, True)


@pytest.mark.parametrize("damping", [-1.0, float("nan"), float("inf")])
def test_a_damping_that_is_no_damping_is_refused(damping):
    with pytest.raises(InputError, match="finite number from 0"):
        conjugate_gradient(as_product(system()[0]), {"a": torch.ones(12)}, damping=damping)


def test_a_right_side_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        conjugate_gradient(as_product(system()[0]), {"a": torch.full((12,), torch.nan)}, damping=1)
