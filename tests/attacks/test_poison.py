"""Noise in forgotten rows: what a model that met it shows, and one that did not."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from unlearnkit.attacks.gaussian_poison import gaussian_poison, poisoned
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

WIDE = 400


def case(n=120, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDE, generator=rng, dtype=torch.float64)
    return Case(train=(x, torch.randint(0, 3, (n,), generator=rng)), task=Classification(3))


def fitted(case, steps=60):
    """Return a linear model that fits more numbers than there are rows: it leans on each."""
    net = nn.Linear(WIDE, 3).double()
    with torch.no_grad():
        net.weight.zero_()
        net.bias.zero_()
    x, y = case.train.x, case.train.y
    for _ in range(steps):
        grads = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
        with torch.no_grad():
            for w, g in zip(net.parameters(), grads, strict=True):
                w.sub_(g, alpha=0.5)
    return net


def asked(net, made, rt=None):
    return gaussian_poison(
        net, Classification(3), made.clean, made.noise, made.sigma, rt or Runtime()
    )


def test_a_model_that_met_the_noise_leans_on_it():
    made = poisoned(case(), Rows(range(60)), Runtime(), sigma=1.0)
    got = asked(fitted(made.case), made)
    assert got.p < 1e-6
    assert got.z < 0
    assert got.interval[0] > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_never_met_it_does_not(seed):
    made = poisoned(case(), Rows(range(60)), Runtime(seed=seed), sigma=1.0)
    got = asked(fitted(case()), made)
    assert got.p > 0.01
    assert got.interval[0] <= 0.01
    assert stats.kstest(got.statistics.numpy(), "norm").pvalue > 0.01


def test_the_share_beyond_fresh_noise_is_one_in_a_hundred():
    rng = torch.Generator().manual_seed(1)
    made = poisoned(case(4000), Rows(range(3000)), Runtime(), sigma=0.5)
    net = fitted(case(100))
    fresh = 0.5 * torch.randn(made.noise.shape, generator=rng, dtype=torch.float64)
    got = gaussian_poison(net, Classification(3), made.clean, fresh, 0.5, Runtime())
    assert got.interval[0] < 0.01 < got.interval[1]
    assert got.z == pytest.approx(float(got.statistics.mean()) * math.sqrt(3000))


def test_each_statistic_is_the_formula_of_one_row():
    made = poisoned(case(20), Rows(range(5)), Runtime(), sigma=0.3)
    net = fitted(made.case, steps=3).train()
    got = asked(net, made)
    assert net.training
    for i in range(5):
        x = case(20).train.x[i].clone().requires_grad_()
        loss = nn.functional.cross_entropy(net(x)[None], case(20).train.y[i : i + 1])
        (g,) = torch.autograd.grad(loss, x)
        want = float(made.noise[i] @ g / (0.3 * g.norm()))
        assert float(got.statistics[i]) == pytest.approx(want, rel=1e-9)


def test_only_the_named_rows_carry_noise_and_the_callers_data_do_not():
    clean = case()
    before = clean.train.x.clone()
    made = poisoned(clean, Rows(3, 7), Runtime(), sigma=2.0)
    assert torch.equal(clean.train.x, before)
    torch.testing.assert_close(made.case.train.x[[3, 7]] - before[[3, 7]], made.noise)
    rest = [i for i in range(120) if i not in {3, 7}]
    assert torch.equal(made.case.train.x[rest], before[rest])
    assert torch.equal(made.clean.data.x, before)
    assert made.case.task is clean.task


def test_a_seed_decides_the_noise():
    one, again, other = (
        poisoned(case(), Rows(range(9)), Runtime(seed=s), sigma=1.0).noise for s in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_rows_without_a_gradient_are_counted():
    x = torch.randn(6, 4)
    net = nn.Sequential(nn.Linear(4, 1), nn.ReLU())
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.zero_()
        x[:2], x[2:] = -x[:2].abs(), x[2:].abs()
    view = View.all(TensorData(x, torch.full((6, 1), 9.0)))
    got = gaussian_poison(net, Regression(1), view, torch.randn(6, 4), 1.0, Runtime())
    assert got.skipped == 2
    assert "2 of 6 rows have no gradient" in got.note
    assert got.statistics.isnan().tolist() == [True] * 2 + [False] * 4
    dead = gaussian_poison(net, Regression(1), view.pick(torch.arange(2)), x[:2], 1.0, Runtime())
    assert math.isnan(dead.z)
    assert math.isnan(dead.p)


def test_the_pass_is_metered_and_leaves_no_gradients():
    made, rt = poisoned(case(), Rows(range(60)), Runtime(), sigma=1.0), Runtime()
    net = fitted(case(), steps=1)
    asked(net, made, rt)
    assert (rt.cost.forward, rt.cost.backward) == (60, 60)
    assert all(w.grad is None for w in net.parameters())


def test_what_cannot_carry_noise_is_refused():
    words = Case(
        train=(torch.ones(9, 2, dtype=torch.long), torch.arange(9) % 3), task="classification"
    )
    with pytest.raises(UnsupportedError, match="one real tensor"):
        poisoned(words, Rows(1), Runtime(), sigma=1.0)
    with pytest.raises(UnsupportedError, match="tokens carry no noise"):
        gaussian_poison(
            nn.Linear(2, 3), words.task, View.all(words.train), torch.ones(9, 2), 1.0, Runtime()
        )


def test_noise_must_fit_the_rows():
    made = poisoned(case(), Rows(range(4)), Runtime(), sigma=1.0)
    net = nn.Linear(WIDE, 3).double()
    task = Classification(3)
    with pytest.raises(InputError, match="one noise a row"):
        gaussian_poison(net, task, made.clean, made.noise[:3], 1.0, Runtime())
    with pytest.raises(InputError, match="noise must be like the inputs"):
        gaussian_poison(net, task, made.clean, made.noise[:, :9], 1.0, Runtime())
    with pytest.raises(InputError, match="sigma must be above 0, got 0"):
        poisoned(case(), Rows(1), Runtime(), sigma=0)
