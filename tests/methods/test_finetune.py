import pytest
import torch

from unlearnkit.core.recipe import Tuning
from unlearnkit.core.request import Rows
from unlearnkit.methods.finetune import FineTune
from unlearnkit.unlearning import unlearn

GO = Rows(0, 1, 2, 3)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_is_gradient_descent_on_the_retained_rows(line, epochs):
    net, case = line()
    run = Tuning.exact(lr=0.05, momentum=0.0, epochs=epochs, batch_size=64)
    got = unlearn(net, case, GO, FineTune(run=run)).model.weight.detach()
    x, y = case.train.x[4:], case.train.y[4:]
    w = net.weight.detach().T
    for _ in range(epochs):
        w = w - 0.05 * 2 / len(x) * x.T @ (x @ w - y)
    torch.testing.assert_close(got, w.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", [Tuning(lr=0.0), Tuning(share=0.0)])
def test_no_rate_or_no_length_changes_nothing(line, run):
    net, case = line()
    assert torch.equal(unlearn(net, case, GO, FineTune(run=run)).model.weight, net.weight)


def test_the_targets_of_forget_rows_do_not_matter(line):
    net, case = line()
    y = case.train.y.clone()
    y[:4] += 100.0
    other = case.with_(train=case.train.with_targets(y))
    a, b = (unlearn(net, c, GO, FineTune()).model.weight for c in (case, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, net.weight)
