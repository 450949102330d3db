import pytest
import torch
from torch import nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import Pass, alternate, descend


def problem(rows=7):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    y = torch.randn(rows, 1, generator=g, dtype=torch.float64)
    net = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, 0.3)
    return net, View.all(TensorData(x, y))


def error(net):
    return lambda b: (net(b.x) - b.y).square().mean()


def test_one_pass_is_plain_descent():
    recipe = Recipe(lr=0.1, epochs=3, batch_size=3, schedule="cosine")
    (a, view), (b, _) = problem(), problem()
    one = descend(a, view, error(a), recipe, Runtime(), stream="s")
    two = alternate(b, [Pass(view, error(b), "s")], recipe, Runtime())
    assert torch.equal(a.weight, b.weight)
    assert one == two


def test_momentum_is_carried_from_one_pass_to_the_next():
    net, view = problem()
    recipe = Recipe(lr=0.1, momentum=0.9, epochs=1, batch_size=99)
    x, y, w = view.data.x, view.data.y, net.weight.detach().clone()
    up = Pass(view, lambda b: -error(net)(b), "up")
    alternate(net, [up, Pass(view, error(net), "down")], recipe, Runtime())
    v = -(2 * (x @ w.T - y) * x).mean(0)
    w = w - 0.1 * v
    v = 0.9 * v + (2 * (x @ w.T - y) * x).mean(0)
    torch.testing.assert_close(net.weight.detach(), w - 0.1 * v)


@pytest.mark.parametrize("epochs", [0, 1, 2, None])
def test_a_pass_is_made_in_as_many_first_epochs_as_it_says(epochs):
    net, view = problem()
    seen = []

    def note(name):
        def loss(b):
            seen.append((name, len(b)))
            return error(net)(b)

        return loss

    passes = [Pass(view, note("a"), "a", epochs, batch_size=5), Pass(view, note("b"), "b")]
    alternate(net, passes, Recipe(epochs=3, batch_size=99), Runtime())
    a_pass, rest = [("a", 5), ("a", 2)], [("b", 7)]
    made = 3 if epochs is None else epochs
    assert seen == (a_pass + rest) * made + rest * (3 - made)


def test_the_cosine_spans_the_steps_of_all_passes():
    net, view = problem()
    rates = []
    passes = [Pass(view, error(net), "a", epochs=1), Pass(view, error(net), "b")]
    recipe = Recipe(lr=1e-3, epochs=3, batch_size=99, schedule="cosine")
    alternate(net, passes, recipe, Runtime(), after_step=rates.append)
    assert rates == [recipe.lr * recipe.factor(k, 4) for k in range(4)]


def test_steps_of_the_rate_fall_between_epochs_although_early_ones_are_longer():
    net, view = problem()
    recipe = Recipe(lr=0.1, schedule="step", step_epochs=3, epochs=5, batch_size=3)
    passes = [Pass(view, error(net), "a", 3, batch_size=4), Pass(view, error(net), "b")]
    rates = []
    alternate(net, passes, recipe, Runtime(), after_step=rates.append)
    a, b = (view.steps(size) for size in (4, 3))
    assert rates == pytest.approx([0.1] * 3 * (a + b) + [0.01] * 2 * b, rel=1e-12)
