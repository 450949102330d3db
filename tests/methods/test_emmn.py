"""EMMN: which way noise goes, what it is held to, and what training on it reaches."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.core.data import View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.emmn import _norms, _roughness, _unlike
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.testing.subject import with_probe


def noisy(model, case, gone, **settings):
    """Return the loss of forgotten and of other classes' noise, made by the method itself."""
    seen = {}

    class Inside:
        def __init__(self, p, rt):
            self.p, self.rt = p, rt

        def __enter__(self):
            for which, classes, wrong in (("forget", gone, True), ("retain", (0, 2), False)):
                made = how.noise(self.p, torch.tensor(classes), self.rt, which, wrong=wrong)
                out = self.p.original(made.x)
                seen[which] = (made, self.p.task.losses(out, made).detach())

        def __exit__(self, *_):
            return None

    how = uk.method("emmn", **{"copies": 8, "run": {"share": 0.0}, **settings})
    uk.unlearn(model, case, uk.Classes(*gone), with_probe(how, Inside))
    return seen


@pytest.fixture(scope="module")
def toy():
    case = toy_case(Classification(3))
    return train_original(case).model, case


def test_noise_of_forgotten_classes_is_wrong_and_that_of_others_right(toy):
    model, case = toy
    before, after = noisy(model, case, (1,), steps=0), noisy(model, case, (1,), steps=40)
    assert (after["forget"][1] > before["forget"][1]).all()
    assert after["retain"][1].mean() < before["retain"][1].mean() / 2
    assert after["retain"][0].y.tolist() == [0] * 8 + [2] * 8


def test_a_penalty_makes_noise_smaller(toy):
    sizes = [
        float(noisy(*toy, (1,), steps=40, keep_decay=w)["retain"][0].x.norm()) for w in (0.0, 1.0)
    ]
    assert sizes[1] < sizes[0]


def test_roughness_is_the_squared_difference_of_neighbours():
    x = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert float(_roughness(x)) == 1 + 16 + 9 + 36


def test_inputs_with_the_remembered_statistics_are_not_unlike():
    layer = nn.BatchNorm2d(3).double().train()
    x = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer.momentum = 1.0
    layer(x)
    layer.running_var.copy_(x.var((0, 2, 3), unbiased=False) - layer.eps)
    assert float(_unlike(x, layer)) == pytest.approx(0, abs=1e-15)
    shifted = x + 2 * layer.running_var.add(layer.eps).sqrt()[:, None, None]
    assert float(_unlike(shifted, layer)) == pytest.approx(4.0)
    assert [name for name, _ in _norms(nn.Sequential(nn.Linear(1, 1), layer))] == ["1"]


def test_no_data_is_needed_and_the_original_stays(toy):
    model, case = toy
    bare = uk.Case.without_data(task=case.task, input_shape=(6,))
    before = model[0].weight.clone()
    done = uk.unlearn(model, bare, "class=1", "emmn")
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(done.model[0].weight, before)
    assert any("assumed lr" in note for note in done.notes)


def test_a_run_of_no_epochs_changes_nothing(toy):
    model, case = toy
    done = uk.unlearn(model, case, uk.Classes(1), uk.method("emmn", run={"share": 0.0}))
    assert torch.equal(done.model[0].weight, model[0].weight)


def test_statistics_of_batch_normalisation_stay_unless_asked_for(toy):
    _, case = toy

    def fresh():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    case = case.replace(fresh=fresh)
    model = train_original(case).model
    moved = [
        not torch.equal(
            uk.unlearn(model, case, uk.Classes(1), uk.method("emmn", norm=norm))
            .model[1]
            .running_mean,
            model[1].running_mean,
        )
        for norm in ("frozen", "train")
    ]
    assert moved == [False, True]


def test_rows_that_are_no_classes_are_refused(toy):
    with pytest.raises(UnsupportedError, match="emmn needs whole classes"):
        uk.unlearn(*toy, uk.Rows(0, 1), "emmn")


OTHER_SEEDS = [pytest.param(s, marks=pytest.mark.exhaustive) for s in (1, 2)]


@pytest.fixture(scope="module")
def trained():
    case = digits()
    return train_original(case).model, case


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *OTHER_SEEDS])
def test_on_digits_the_default_forgets_and_keeps(trained, seed):
    model, case = trained
    bare = uk.Case.without_data(task=case.task, input_shape=(64,), recipe=case.recipe)
    done = uk.unlearn(model, bare, "class=3", "emmn", Runtime(seed=seed))
    out, y = predict(done.model, View.all(case.test), case.task, Runtime()), case.test.y
    right, gone = (out.argmax(-1) == y).double(), y == 3
    assert float(right[gone].mean()) <= 0.05
    assert float(right[~gone].mean()) >= 0.93  # retraining: 0.967


@pytest.mark.parametrize("seed", [0, OTHER_SEEDS[0]])
def test_on_batch_normalisation_the_default_forgets_and_keeps(normed_digits, seed):
    model, case = normed_digits
    bare = uk.Case.without_data(task=case.task, input_shape=(1, 8, 8), recipe=case.recipe)
    done = uk.unlearn(model, bare, "class=3", "emmn", Runtime(seed=seed))
    out, y = predict(done.model, View.all(case.test), case.task, Runtime()), case.test.y
    right, gone = (out.argmax(-1) == y).double(), y == 3
    assert float(right[gone].mean()) <= 0.1
    assert float(right[~gone].mean()) >= 0.87  # with 10 steps of 0.03: 0.81
