"""Real targets: one, several, sequences; three losses; shapes that never broadcast."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import Batch, TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.oracles import train_original

RNG = np.random.default_rng(0)
QUANTILES = (0.1, 0.5, 0.9)


def batch(y):
    return Batch(torch.zeros(len(y), 2, dtype=torch.float64), y, torch.arange(len(y)))


def data(*shape):
    return TensorData(torch.zeros(shape[0], 2), torch.tensor(RNG.normal(3, 2, shape)))


def test_the_pinball_loss_is_that_of_scikit_learn():
    y, out = RNG.normal(size=(50, 4)), RNG.normal(size=(50, 4, 3))
    task = uk.Regression(4, loss="pinball", quantiles=QUANTILES)
    got = task.losses(torch.tensor(out.reshape(50, 12)), batch(torch.tensor(y)))
    each = [mean_pinball_loss(y, out[..., i], alpha=q) for i, q in enumerate(QUANTILES)]
    assert got.mean().item() == pytest.approx(np.mean(each), rel=1e-12)


def test_quantiles_are_as_far_from_quantiles_as_from_targets_and_the_median_is_quoted():
    task = uk.Regression(2, loss="pinball", quantiles=QUANTILES)
    y = torch.tensor(RNG.normal(size=(7, 2)))
    same = y.repeat_interleave(3, 1)
    out = torch.tensor(RNG.normal(size=(7, 6)))
    torch.testing.assert_close(task.divergence(out, same), task.losses(out, batch(y)))
    assert bool((task.divergence(out, out) == 0).all())
    torch.testing.assert_close(task.errors(out, batch(y)), (out[:, [1, 4]] - y).abs().mean(1))


@pytest.mark.parametrize(
    ("loss", "want"),
    [
        ("l2", 4.0),
        ("l1", 2 * norm.expect(abs)),
        ("pinball", 2 * np.mean(norm.pdf(norm.ppf(QUANTILES)))),
    ],
)
def test_a_model_without_knowledge_has_the_loss_of_the_best_constant(loss, want):
    task = uk.Regression(loss=loss, centre=(3.0,), scale=(2.0,))
    assert task.never_seen == pytest.approx(want, rel=1e-6)
    y = norm.ppf((np.arange(20_000) + 0.5) / 20_000) * 2 + 3
    best = np.quantile(y, QUANTILES) if loss == "pinball" else np.array([3.0])
    out = torch.tensor(np.tile(best, (len(y), 1)))
    got = task.losses(out, batch(torch.tensor(y)[:, None])).mean().item()
    assert got == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "answer", "width"),
    [
        ((9,), (1,), 1),
        ((9,), (), 1),
        ((9, 3), (3,), 3),
        ((9, 4, 2), (4, 2), 8),
        ((9, 4), (4, 1), 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_targets_and_answers_of_every_shape_meet(shape, answer, width, loss):
    task = uk.Regression.infer(data(*shape), loss=loss)
    y = task.targets(torch.tensor(RNG.normal(size=shape)))
    assert (task.width, tuple(y.shape)) == (width, (9, width))

    class Told(nn.Module):
        def forward(self, x):
            return y[: len(x)].reshape(len(x), *answer)

    out = task.outputs(Told(), batch(y))
    assert bool((task.losses(out, batch(y)) == 0).all())


def test_a_column_against_a_row_is_refused():
    task, y = uk.Regression(), torch.zeros(5, 1)
    for compare in (task.errors, task.losses):
        with pytest.raises(InputError, match=r"outputs \(5,\) and targets \(5, 1\) differ"):
            compare(torch.zeros(5), batch(y))


def test_a_classifier_is_refused():
    case = uk.Case(train=(torch.randn(8, 2), torch.arange(8.0)), task="regression")
    with pytest.raises(UnsupportedError, match=r"returns shape \(2, 4\); predictions \(B, 1\)"):
        uk.unlearn(nn.Linear(2, 4), case, "target<3", "gaussian_amnesiac")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_targets_that_are_not_finite_are_refused(bad):
    y = torch.arange(8.0)
    y[5] = bad
    with pytest.raises(InputError, match="train: y is not finite in 1 of 8 rows, first row 5"):
        uk.Case(train=(torch.randn(8, 2), y), task="regression")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "huber"}, "loss: must be l2, l1 or pinball, got 'huber'"),
        ({"loss": "pinball", "quantiles": (0.5, 1.0)}, "name some between 0 and 1"),
        ({"loss": "pinball", "quantiles": ()}, "name some between 0 and 1"),
    ],
)
def test_wrong_losses_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        uk.Regression(**settings)


def test_a_task_without_quantiles_describes_itself_as_it_always_did():
    assert set(uk.Regression().spec()) == {"name", "width", "loss", "centre", "scale"}
    assert uk.Regression(loss="pinball").spec()["quantiles"] == list(QUANTILES)


@pytest.mark.parametrize("method", ["blindspot_regression", "gaussian_amnesiac"])
@pytest.mark.parametrize("loss", ["l1", "l2", "pinball"])
@pytest.mark.parametrize("shape", [(), (2,), (3, 2)], ids=["scalar", "vector", "sequence"])
def test_forgetting_lowers_the_fit_of_forget_rows_for_every_loss_and_target(method, loss, shape):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=g)
    y = torch.randn(80, *shape, generator=g)
    task = uk.Regression.infer(TensorData(x, y), loss=loss)
    width = task.width * (len(task.quantiles) or 1)

    def fresh():
        return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, width))

    recipe = uk.Recipe(optimizer="adam", lr=0.02, epochs=50, batch_size=16)
    case = uk.Case(train=(x, y), task=task, fresh=fresh, recipe=recipe)
    model = train_original(case).model
    done = uk.unlearn(model, case, uk.Rows(range(12)), method)
    rows = batch(case.train.y[:12])

    def error(net):
        return task.errors(net.eval()(x[:12]).detach(), rows).mean().item()

    assert error(done.model) > 1.05 * error(model)
