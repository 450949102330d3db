"""Directional derivatives and summed gradients against finite differences and autograd."""

import torch
from torch import nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.directional_derivative import directional_derivative
from unlearnkit.linalg.loss_gradient import summed_gradient
from unlearnkit.tasks.classification import Classification


def problem():
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for w in net.parameters():
            w.copy_(torch.randn(w.shape, generator=g, dtype=torch.float64))
    x = torch.randn(11, 4, generator=g, dtype=torch.float64)
    step = {
        n: torch.randn(p.shape, generator=g, dtype=torch.float64) for n, p in net.named_parameters()
    }
    return net, View.all(TensorData(x, torch.arange(11) % 3)), step


def test_a_directional_derivative_is_the_limit_of_differences():
    net, view, step = problem()
    rt = Runtime()
    got = directional_derivative(net, view, Classification(3), rt, step)
    eps, start = 1e-6, {n: p.detach().clone() for n, p in net.named_parameters()}
    sides = []
    for sign in (1, -1):
        moved = {n: t + sign * eps * step[n] for n, t in start.items()}
        sides.append(torch.func.functional_call(net, moved, (view.data.x,)).detach())
    torch.testing.assert_close(got, (sides[0] - sides[1]) / (2 * eps), rtol=1e-6, atol=1e-7)
    assert (rt.cost.forward, rt.cost.backward) == (11, 22)


def test_only_named_parameters_move():
    net, view, step = problem()
    some = {"2.bias": step["2.bias"]}
    got = directional_derivative(net, view, Classification(3), Runtime(), some)
    torch.testing.assert_close(got, step["2.bias"].expand(11, 3))


def test_a_summed_gradient_is_that_of_the_sum():
    net, view, _ = problem()
    got = summed_gradient(net, view, Classification(3), Runtime(), batch_size=4)
    loss = nn.functional.cross_entropy(net(view.data.x), view.y, reduction="sum")
    for (name, _), want in zip(
        net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
    ):
        torch.testing.assert_close(got[name], want, rtol=1e-10, atol=1e-12)
