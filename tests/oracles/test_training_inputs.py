"""Every input of training, one by one: each changes the address under which a model is kept."""

import functools
import random
import sys
from types import MethodType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.cache import Cache
from unlearnkit.catalog import method as make
from unlearnkit.core.case import Case
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, oracle_keys, original_key, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3
TOY = toy_case(Classification(3))


def plain():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def case(**changes):
    parts = {"train": (X.clone(), Y.clone()), "task": Classification(3), "fresh": plain}
    return Case(**{"recipe": Recipe(epochs=1, batch_size=8), **parts, **changes})


def key(subject, seed=0, rt=None):
    return digest(original_key(subject, seed, rt or Runtime()))


def built(change):
    """Return a factory whose modules are changed after they are built."""

    def fresh():
        model = plain()
        change(model)
        return model

    return fresh


class Scaled(nn.Module):
    """A module whose forward depends on what layers do not print."""

    def __init__(self, factor=1.0, act=torch.relu):
        super().__init__()
        self.layer, self.factor, self.act = nn.Linear(6, 3), factor, act

    def forward(self, x):
        return self.act(self.layer(x)) * self.factor


def of_base(sign):
    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) * sign

    class Net(Base):
        pass

    return Net


def of_text(text):
    """Return a class from text, as a notebook without source files has them."""
    space = {"nn": nn}
    exec(text, space)
    return space["Net"]


FORWARD = "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(6, 3)\n"
FORWARD += "    def forward(self, x):\n        return super().forward(x) * {0}"


def helped(factor):
    """Return a class whose forward calls a function of another module of the user's."""
    helper = ModuleType("helper_of_mine")
    exec(f"def scale(x):\n    return x * {factor}", helper.__dict__)
    sys.modules["helper_of_mine"] = helper
    space = {"nn": nn, "helper": helper}
    exec(FORWARD.format("0 + helper.scale(x).sum()"), space)
    return space["Net"]


def freeze(model):
    model[0].requires_grad_(False)


def hook(factor):
    return lambda m: m[0].register_forward_hook(lambda _m, _x, out: out * factor)


def instead(factor):
    def change(model):
        def forward(self, x):
            return self[2](self[1](self[0](x))) * factor

        model.forward = MethodType(forward, model)

    return change


def unsaved(value):
    return lambda m: m[0].register_buffer("mask", torch.full((3,), value), persistent=False)


def tie(model):
    model.append(nn.Linear(3, 3))
    model.append(nn.Linear(3, 3))
    model[4].weight = model[3].weight


def equal(model):
    tie(model)
    model[4].weight = nn.Parameter(model[3].weight.detach().clone())


def encoder(**settings):
    def fresh():
        layer = nn.TransformerEncoderLayer(6, dropout=0.0, dim_feedforward=4, **settings)
        return nn.Sequential(layer, nn.Linear(6, 3))

    return fresh


class Weighted(Classification):
    """A task whose loss has a weight that its settings do not name."""

    weight = 1.0

    def losses(self, out, batch):
        return super().losses(out, batch) * self.weight


class Doubled(Classification):
    def losses(self, out, batch):
        return super().losses(out, batch) * 2


def weighted(value):
    task = Weighted(3)
    task.weight = value
    return task


def by_function(fn):
    task = Weighted(3)
    task.losses = fn
    return task


class Slow(Recipe):
    def build(self, params):
        return torch.optim.SGD(params, lr=self.lr / 2)


class Set:
    """A map-style data set; what it draws at random is a flip of the sign."""

    def __init__(self, x=X, y=Y, chance=0.0, draw=lambda: torch.rand(()).item()):
        self.x, self.y, self.chance, self.draw = x, y, chance, draw

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        sign = -1 if self.chance and self.draw() < self.chance else 1
        return self.x[i] * sign, int(self.y[i])


def moved():
    x = X.clone()
    x[3, 1] += 1e-6
    return x


PAIRS = {
    **{
        f"recipe {name}": ({}, {"recipe": Recipe(**{"epochs": 1, "batch_size": 8, name: value})})
        for name, value in {
            "optimizer": "adam",
            "lr": 0.02,
            "momentum": 0.8,
            "weight_decay": 0.1,
            "schedule": "cosine",
            "epochs": 2,
            "batch_size": 9,
            "augment": "flip_crop",
        }.items()
    },
    "recipe of another kind": ({}, {"recipe": Slow(epochs=1, batch_size=8)}),
    "inputs": ({}, {"train": (moved(), Y)}),
    "targets": ({}, {"train": (X, Y.flip(0))}),
    "order of rows": ({}, {"train": (X.flip(0), Y.flip(0))}),
    "named inputs": ({"train": ({"a": X}, Y)}, {"train": ({"b": X}, Y)}),
    "data set": ({"train": Set()}, {"train": Set(moved())}),
    "chance in a data set": (
        {"train": Set(chance=0.5)},
        {"train": Set(chance=0.5001)},
    ),
    "workers of a random data set": (
        {"train": Set(chance=0.5)},
        {"train": Set(chance=0.5), "workers": 1},
    ),
    "initial weights": ({}, {"fresh": built(lambda m: nn.init.zeros_(m[2].bias))}),
    "activation": ({}, {"fresh": built(lambda m: m.__setitem__(1, nn.Tanh()))}),
    "frozen weights": ({}, {"fresh": built(freeze)}),
    "shared weights": ({"fresh": built(equal)}, {"fresh": built(tie)}),
    "buffers that are not saved": ({"fresh": built(unsaved(1.0))}, {"fresh": built(unsaved(2.0))}),
    "attribute": ({"fresh": Scaled}, {"fresh": functools.partial(Scaled, 2.0)}),
    "function in an attribute": ({"fresh": Scaled}, {"fresh": lambda: Scaled(1.0, torch.tanh)}),
    "hook": ({"fresh": built(hook(2))}, {"fresh": built(hook(3))}),
    "forward put in later": ({"fresh": built(instead(2))}, {"fresh": built(instead(3))}),
    "base class": ({"fresh": of_base(1)}, {"fresh": of_base(-1)}),
    "class without source": (
        {"fresh": of_text(FORWARD.format(1))},
        {"fresh": of_text(FORWARD.format(2))},
    ),
    "helper in another module": ({"fresh": helped(2)}, {"fresh": helped(3)}),
    "heads of attention": ({"fresh": encoder(nhead=2)}, {"fresh": encoder(nhead=3)}),
    "activation of an encoder": (
        {"fresh": encoder(nhead=2)},
        {"fresh": encoder(nhead=2, activation="gelu")},
    ),
    "norm of an encoder": (
        {"fresh": encoder(nhead=2)},
        {"fresh": encoder(nhead=2, norm_first=True)},
    ),
    "classes of the task": ({}, {"task": Classification(4)}),
    "loss of another kind": ({}, {"task": Doubled(3)}),
    "attribute of a loss": ({"task": weighted(1.0)}, {"task": weighted(2.0)}),
    "loss put in later": (
        {"task": by_function(lambda out, b: out.sum(1))},
        {"task": by_function(lambda out, b: out.sum(1) * 2)},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_input_of_training_is_in_the_key(name):
    one, other = PAIRS[name]
    assert key(case(**one)) == key(case(**one))
    assert key(case(**one)) != key(case(**other))


def test_seed_kind_request_precision_and_kind_of_product_are_in_the_key():
    one, bf16 = case(), Runtime(precision="bf16")
    before = torch.get_float32_matmul_precision()
    found = [
        key(one),
        key(one, seed=1),
        key(one, rt=bf16),
        *(digest(oracle_keys(one, Rows(r), [0], Runtime())[0]) for r in (1, 2)),
    ]
    try:
        torch.set_float32_matmul_precision("medium")
        found.append(key(one))
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(set(found)) == 6


def in_tensor(x, y):
    x[0] += 1


def in_targets(x, y):
    y[0] = (y[0] + 1) % 3


@pytest.mark.parametrize("change", [in_tensor, in_targets])
@pytest.mark.parametrize("form", ["tensor", "array", "data set"])
def test_rows_changed_in_place_are_never_served_models_of_the_old_ones(tmp_path, form, change):
    x, y = X.clone(), Y.clone()
    if form == "data set" and change is in_targets:
        pytest.skip("targets of a data set are read once, when the case is made")
    given = {"tensor": (x, y), "array": (x.numpy(), y.numpy()), "data set": Set(x, y)}[form]
    subject, cache = case(train=given), Cache(tmp_path)
    train_original(subject, cache=cache)
    oracle(subject, Rows(1), seeds=1, cache=cache)
    change(x, y)
    assert not train_original(subject, cache=cache).cached
    assert not oracle(subject, Rows(1), seeds=1, cache=cache).runs[0].cached


def test_a_set_whose_transform_changes_after_the_case_was_made_is_another_set():
    rows = Set(chance=0.5)
    subject = case(train=rows)
    before = key(subject)
    rows.chance = 0.5001
    assert key(subject) != before


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.rand, lambda: torch.rand(()).item()],
    ids=["random", "numpy", "torch"],
)
def test_draws_from_any_global_generator_follow_the_seed(tmp_path, draw):
    states = []
    for folder in ("a", "b"):
        draw()  # somebody else's draw moves nothing
        subject = case(train=Set(chance=0.5, draw=draw))
        kept = train_original(subject, cache=Cache(tmp_path / folder))
        states.append((key(subject), kept.model[0].weight))
    assert states[0][0] == states[1][0]
    assert torch.equal(states[0][1], states[1][1])


@pytest.mark.parametrize(
    "own",
    [random.Random(0).random, np.random.default_rng(0).random, random.SystemRandom().random],
    ids=["random.Random", "default_rng", "system"],
)
def test_a_set_that_cannot_be_read_twice_alike_is_refused_with_the_way_out(tmp_path, own):
    subject = case(train=Set(chance=0.5, draw=own))
    with pytest.raises(InputError, match="draw from the global generator of torch, random or nump"):
        train_original(subject, cache=Cache(tmp_path))


def test_a_set_that_counts_its_reads_keeps_its_address():
    class Counting(Set):
        reads = 0

        def __getitem__(self, i):
            self.reads += 1
            return super().__getitem__(i)

    subject = case(train=Counting(chance=0.5))
    assert key(subject) == key(subject) == key(case(train=Counting(chance=0.5)))


@pytest.mark.parametrize("give", [case, TOY.replace], ids=["case", "changed"])
def test_a_case_whose_recipe_trains_nothing_is_refused(give):
    with pytest.raises(InputError, match=r"recipe: 0 epochs would leave .* at least 1"):
        give(recipe=Recipe(epochs=0))


@pytest.mark.parametrize(
    "name", ["finetune", "cf_k", "neggrad_plus", "relabel", "salun", "l1_sparse"]
)
@pytest.mark.parametrize("run", [{"share": 0}, {"recipe": {"epochs": 0}}], ids=["share", "recipe"])
def test_a_method_that_is_given_no_epochs_returns_the_original(name, run):
    torch.manual_seed(0)
    model = TOY.fresh()
    done = run_method(model, TOY, Rows(1, 2), make(name, run={"kind": "tuning", **run}))
    moved = done.model.state_dict()
    assert [n for n, t in model.state_dict().items() if not torch.equal(t, moved[n])] == []
