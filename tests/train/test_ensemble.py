import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.cache import Cache
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import DivergedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.train import ensemble
from unlearnkit.train.ensemble import (
    EnsembleMember,
    StackProbe,
    fit_each,
    fit_together,
    worth_stacking,
)
from unlearnkit.unlearning.run_method import fresh_model

fork = multiprocessing.get_context("fork")
TOY = toy_case(Classification(3))
RNG = torch.Generator().manual_seed(3)
IMAGES = (torch.randn(45, 1, 8, 8, generator=RNG), torch.arange(45) % 3)


def conv_bn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )


def dropping():
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.Dropout(0.3),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    )


class Pooling(nn.Module):
    """Images through strided, grouped and pooled layers, flattened by a view."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.out = nn.Linear(12, 3, bias=False)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.norm(self.first(x)), 2)
        x = nn.functional.avg_pool2d(self.second(x), 2, stride=1)
        x = nn.functional.adaptive_avg_pool2d(x, (1, 2))
        return self.out(x.view(x.shape[0], -1))


class Editing(Pooling):
    """Halves in place what it views, and goes on with what it viewed."""

    def forward(self, x):
        x = self.norm(self.first(x))
        x.view(x.shape[0], -1).mul_(0.5)
        x = nn.functional.avg_pool2d(self.second(x), 3)
        return self.out(nn.functional.adaptive_avg_pool2d(x, (1, 2)).flatten(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.out = nn.Linear(6, 3)
        self.out.bias.requires_grad_(False)

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Asking(nn.Linear):
    """Reads a value in Python, which a vectorised pass cannot."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 1e9 else super().forward(2 * x)


class Keeping(nn.Linear):
    """Has a random tensor beside its parameters."""

    def __init__(self, *shape):
        super().__init__(*shape)
        self.turn = torch.randn(shape[0])

    def forward(self, x):
        return super().forward(x * self.turn)


class Averaging(nn.Linear):
    """Puts a new tensor in the place of its buffer."""

    def __init__(self, *shape):
        super().__init__(*shape)
        self.register_buffer("mean", torch.zeros(shape[0]))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return super().forward(x - self.mean)


class Counting(nn.Linear):
    """Counts its calls in Python, where a recorded step would not see them."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


class Warming(nn.Linear):
    """Doubles what it reads from its fifth call on."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x if self.calls < 5 else 2 * x)


class Drawing(nn.Linear):
    """Draws from a generator of Python or NumPy, and seldom does something with it."""

    def __init__(self, draw):
        super().__init__(6, 3)
        self.draw = draw

    def forward(self, x):
        return super().forward(x if self.draw() < 0.999999 else 0 * x)


def numpys():
    return np.random.random()  # noqa: NPY002  # the global one, as in many a model


def images(make=conv_bn, **recipe):
    settings = {"lr": 0.05, "epochs": 3, "batch_size": 11, **recipe}
    return Case(train=IMAGES, task=Classification(3), fresh=make, recipe=Recipe(**settings))


def toy(make=None, task=None, **recipe):
    case = TOY if task is None else toy_case(task)
    own = case.recipe.model_copy(update={"epochs": 3, "batch_size": 13, **recipe})
    return case.replace(recipe=own, fresh=make or case.fresh)


def members(case, seeds, dtype=torch.float64, keep=None):
    found = []
    for seed in seeds:
        rt = Runtime(seed=seed)
        rows = torch.arange(len(case.train)) if keep is None else keep(seed, len(case.train))
        model = fresh_model(case, rt, "train/init").to(dtype)
        view = View.all(case.train).pick(rows)
        found.append(EnsembleMember(model, view, rt, f"oracle {seed}", place=seed))
    return found


def together(group, case):
    return [len(part) for part in fit_together(group, case.task, case.recipe)]


def compare(mine, theirs, *, exact=False):
    rtol, atol = (0.0, 0.0) if exact else (1e-9, 1e-12)
    for a, b in zip(mine, theirs, strict=True):
        other = b.model.state_dict()
        for name, t in a.model.state_dict().items():
            torch.testing.assert_close(t, other[name], rtol=rtol, atol=atol)
        assert a.rt.cost == b.rt.cost


CASES = {
    "sgd, cosine, decay": toy(schedule="cosine", weight_decay=1e-2),
    "adam": toy(optimizer="adam", lr=1e-2, weight_decay=1e-2),
    "adamw": toy(optimizer="adamw", lr=1e-2, weight_decay=1e-1, schedule="cosine"),
    "last row joins": toy(batch_size=59),
    "regression": toy(task=Regression.infer(toy_case(Regression(1)).train)),
    "multilabel": toy(task=MultiLabel(3)),
    "batch norm": images(),
    "pooling and a view": images(Pooling),
    "augment": images(augment="flip_crop"),
    "dropout": toy(dropping),
    "tied and frozen": toy(Tied),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_training_together_equals_training_alone(case):
    mine, theirs = members(case, range(4)), members(case, range(4))
    fit_each(theirs, case.task, case.recipe)
    assert together(mine, case) == [4]
    compare(mine, theirs)


def test_each_model_may_have_rows_of_its_own():
    def keep(seed, count):
        mask = torch.zeros(count, dtype=torch.bool)
        mask[seed : count // 2 + seed + (seed == 3)] = True
        return mask

    case = toy()
    mine, theirs = members(case, range(5), keep=keep), members(case, range(5), keep=keep)
    fit_each(theirs, case.task, case.recipe)
    assert sorted(together(mine, case)) == [1, 4]
    compare(mine, theirs)


@pytest.mark.parametrize(
    "case",
    [
        toy(lambda: nn.Sequential(Asking(6, 3))),
        toy(lambda: Keeping(6, 3)),
        toy(lambda: nn.Sequential(nn.Linear(6, 8), nn.AlphaDropout(0.2), nn.Linear(8, 3))),
        images(lambda: nn.Sequential(nn.BatchNorm2d(1, momentum=None), *conv_bn())),
        images(Editing),
        toy(lambda: Averaging(6, 3)),
        toy(lambda: Counting(6, 3)),
        toy(lambda: Warming(6, 3)),
        toy(lambda: Drawing(random.random)),
        toy(lambda: Drawing(numpys)),
    ],
    ids=[
        *("reads a value", "hidden tensor", "draws by itself", "cumulative norm", "edits a view"),
        *("replaces a buffer", "counts", "counts to five", "draws in Python", "draws in NumPy"),
    ],
)
def test_what_cannot_be_stacked_is_trained_one_after_another(case):
    mine, theirs = members(case, range(3)), members(case, range(3))
    fit_each(theirs, case.task, case.recipe)
    assert together(mine, case) == [1, 1, 1]
    compare(mine, theirs, exact=True)
    assert not worth_stacking(members(case, [0])[0], case.task, case.recipe)


@pytest.mark.parametrize("case", [toy(), toy(dropping), images()], ids=["mlp", "drop", "conv"])
def test_the_bits_do_not_depend_on_the_company(case):
    whole = members(case, range(20), torch.float32)
    together(whole, case)
    for few in ([7], [1, 8], [0, 2, 3, 5, 6], [17, 18, 19], [1, 17]):
        part = members(case, few, torch.float32)
        together(part, case)
        compare(part, [whole[i] for i in few], exact=True)


def test_a_unit_that_rounding_switches_off_does_not_forbid_a_stack():
    def net():
        return nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)),
            *(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)),
            *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
        )

    case = digits().replace(fresh=net)
    pair = [members(case, [seed], torch.float32)[0] for seed in (0, 4)]
    assert StackProbe.of(pair, case.task, case.recipe) is not None


def test_chunks_are_even_and_fit_into_memory(monkeypatch):
    case = toy()
    group = members(case, range(7))
    probe = StackProbe.of(group, case.task, case.recipe)
    monkeypatch.setattr(ensemble, "MEMORY", 3 * probe.bytes)
    assert together(group, case) == [3, 3, 1]
    assert [len(part) for part in probe.chunks(group, least=4)] == [2, 2, 2, 1]


def test_training_together_leaves_flags_and_the_global_generator_alone():
    case = toy(dropping)
    group = members(case, range(2))
    group[0].model[1].eval()
    before = torch.get_rng_state()
    together(group, case)
    assert torch.equal(before, torch.get_rng_state())
    assert not group[0].model[1].training
    assert group[1].model[1].training


def test_oracles_trained_together_take_the_place_of_those_trained_alone(tmp_path):
    case = toy()
    alone = [oracle(case, Rows(0), seeds=[s], cache=Cache(tmp_path / "a")).runs[0] for s in (1, 2)]
    both = oracle(case, Rows(0), seeds=[1, 2], cache=Cache(tmp_path / "b"))
    assert [r.cached for r in both.runs] == [False, False]
    for a, b in zip(alone, both.runs, strict=True):
        assert a.cost == b.cost
        for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
    again = oracle(case, Rows(0), seeds=[1, 2], cache=Cache(tmp_path / "a"))
    assert [r.cached for r in again.runs] == [True, True]


def test_an_ensemble_that_diverges_is_told(tmp_path):
    with pytest.raises(DivergedError, match="use a smaller learning rate"):
        oracle(toy(lr=1e12), Rows(0), seeds=3, cache=Cache(tmp_path))
    assert not list(Cache(tmp_path).entries())


def train_until(limit, folder, log):
    """Train 64 models, and kill this process when so many are kept; never at 0."""
    ensemble.MEMORY = 200_000
    save = Cache._save

    def kept(self, path, tensors, key, facts):
        if limit and len(log.read_text().splitlines()) >= limit:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, path, tensors, key, facts)
        with log.open("a") as f:
            f.write(f"{key['seed']}\n")

    Cache._save = kept
    oracle(SHORT, Rows(0), seeds=64, cache=Cache(folder))


SHORT = TOY.replace(recipe=TOY.recipe.model_copy(update={"epochs": 3}))


def test_an_ensemble_killed_again_and_again_ends_at_the_same_bits(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "cache"
    log.write_text("")
    for limit in (37, 0):
        child = fork.Process(target=train_until, args=(limit, folder, log))
        child.start()
        child.join(60)
        assert child.exitcode == (-signal.SIGKILL if limit else 0)
    seeds = [int(s) for s in log.read_text().split()]
    assert sorted(seeds) == list(range(1000, 1064))
    killed = oracle(SHORT, Rows(0), seeds=64, cache=Cache(folder))
    assert all(r.cached for r in killed.runs)
    whole = oracle(SHORT, Rows(0), seeds=64, cache=Cache(tmp_path / "whole"))
    for a, b in zip(killed.models, whole.models, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
