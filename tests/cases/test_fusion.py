"""The forecasting network's parts compute what the paper's equations say, and look not ahead."""

import pytest
import torch
from torch.nn import functional

from unlearnkit.cases.temporal_fusion import Gate, GatedResidual, TemporalFusion, VariableSelection


def numbers(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def test_a_gate_lets_a_share_of_the_update_through():
    gate, update, base = Gate(4).double(), numbers(3, 4), numbers(3, 4, seed=1)
    w, b = gate.pass_on.weight, gate.pass_on.bias
    value, share = (update @ w.T + b).chunk(2, -1)
    total = base + value / (1 + torch.exp(-share))
    centred = total - total.mean(-1, keepdim=True)
    want = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(gate(update, base), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outputs", [5, 3])
def test_a_closed_gate_leaves_the_shortcut(outputs):
    part = GatedResidual(5, 8, outputs).double()
    with torch.no_grad():
        part.gate.pass_on.weight.zero_()
        part.gate.pass_on.bias.copy_(torch.tensor([0.0] * outputs + [-1e9] * outputs))
    x = numbers(2, 5)
    want = functional.layer_norm(part.shortcut(x), (outputs,))
    torch.testing.assert_close(part(x), want, rtol=1e-10, atol=1e-12)


def test_variables_are_weighed_by_shares_that_sum_to_one():
    part, x = VariableSelection(3, 4).double(), numbers(2, 5, 3)
    weight = torch.exp(part.weigh(x))
    weight = weight / weight.sum(-1, keepdim=True)
    want = torch.zeros(2, 5, 4, dtype=torch.float64)
    for v in range(3):
        line = x[..., v, None] * part.scale[v] + part.shift[v]
        want += weight[..., v, None] * torch.where(line > 0, line, torch.expm1(line))
    torch.testing.assert_close(part(x), want, rtol=1e-10, atol=1e-12)


def network():
    return TemporalFusion(3, 2, quantiles=2, width=8).double().eval()


def test_each_step_to_come_has_its_quantiles():
    assert network()(numbers(4, 6, 3), numbers(4, 5, 2)).shape == (4, 5, 2)


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_step_knows_the_past_and_nothing_of_later_steps(step):
    net, past, future = network(), numbers(1, 6, 3), numbers(1, 5, 2)
    past.requires_grad_()
    future.requires_grad_()
    before, ahead = torch.autograd.grad(net(past, future)[0, step].sum(), (past, future))
    touched = ahead[0].abs().sum(1) > 0
    assert touched.tolist() == [f <= step for f in range(5)]
    assert bool((before[0].abs().sum(1) > 0).all())


def test_answers_are_added_to_the_target_of_as_many_steps_ago():
    net, past, future = network(), numbers(2, 6, 3), numbers(2, 5, 2)
    with torch.no_grad():
        net.answer.weight.zero_()
        net.answer.bias.copy_(torch.tensor([-1.0, 1.0]))
    want = torch.stack([past[:, 1:, 0] - 1, past[:, 1:, 0] + 1], 2)
    torch.testing.assert_close(net(past, future), want, rtol=1e-12, atol=1e-12)


def test_every_weight_gets_a_gradient():
    net = network()
    net(numbers(4, 6, 3), numbers(4, 5, 2)).square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []
