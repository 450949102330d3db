import pytest
import torch
from torch import nn

from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.content import architecture_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.retrain import Retrain
from unlearnkit.oracles import oracle, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

TOY = toy_case(Classification(3))
GO = Rows(0, 1, 2)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_second_call_loads_the_same_bits(tmp_path):
    first = oracle(TOY, GO, seeds=2, cache=Cache(tmp_path))
    again = oracle(TOY, GO, seeds=2, cache=Cache(tmp_path))
    assert [r.cached for r in again.runs] == [True, True]
    assert all(same(a, b) for a, b in zip(first.models, again.models, strict=True))
    assert again.runs[0].cost.backward == TOY.recipe.epochs * 57


def test_more_seeds_train_only_what_is_missing(tmp_path):
    oracle(TOY, GO, seeds=2, cache=Cache(tmp_path))
    more = oracle(TOY, GO, seeds=3, cache=Cache(tmp_path))
    assert [r.cached for r in more.runs] == [True, True, False]


def test_a_model_says_how_many_shared_the_seconds_of_its_training(tmp_path):
    for _ in range(2):
        assert [r.together for r in oracle(TOY, GO, seeds=3, cache=Cache(tmp_path)).runs] == [3] * 3
    assert oracle(TOY, GO, seeds=[7], cache=Cache(tmp_path)).runs[0].together == 1


def test_oracles_differ_by_seed_and_never_saw_the_forget_rows(tmp_path):
    a, b = oracle(TOY, GO, seeds=2, cache=Cache(tmp_path)).models
    assert not same(a, b)
    x = TOY.train.x.clone()
    x[:3] = 1e3
    other = Case(train=(x, TOY.train.y), task=TOY.task, fresh=TOY.fresh, recipe=TOY.recipe)
    moved = oracle(other, GO, seeds=2, cache=Cache(tmp_path / "other")).models[0]
    assert same(a, moved)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": TOY.recipe.model_copy(update={"lr": 0.06})},
        {"fresh": lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))},
    ],
    ids=["recipe", "activation"],
)
def test_another_recipe_or_architecture_is_never_served_from_the_cache(tmp_path, change):
    oracle(TOY, GO, seeds=1, cache=Cache(tmp_path))
    assert not oracle(TOY.replace(**change), GO, seeds=1, cache=Cache(tmp_path)).runs[0].cached


def test_layers_with_equal_weights_and_another_forward_have_another_digest():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Thrice(nn.Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    assert architecture_digest(Twice(2, 2)) != architecture_digest(Thrice(2, 2))


def test_retraining_as_a_method_costs_what_an_oracle_costs(tmp_path):
    cache = Cache(tmp_path)
    done = run_method(train_original(TOY, cache=cache).model, TOY, GO, Retrain())
    assert done.cost.backward == oracle(TOY, GO, seeds=1, cache=cache).runs[0].cost.backward


@pytest.mark.parametrize("seeds", [0, [], [1, 1]])
def test_no_seed_or_one_twice_is_refused(seeds):
    with pytest.raises(InputError, match="seeds must be different and at least one"):
        oracle(TOY, GO, seeds=seeds)


@pytest.mark.parametrize(("what", "told"), [("fresh", "model factory"), ("recipe", "no recipe")])
def test_a_case_that_cannot_be_trained_is_told(what, told):
    with pytest.raises(UnsupportedError, match=told):
        oracle(TOY.replace(**{what: None}), GO)


def test_parts_without_retained_rows_have_no_oracle():
    case = Case.from_parts(forget=(TOY.train.x[:3], TOY.train.y[:3]), task=TOY.task)
    with pytest.raises(UnsupportedError, match="no rows that stay"):
        oracle(case, None)


def test_a_training_that_diverges_is_told_and_not_kept(tmp_path):
    wild = TOY.replace(recipe=Recipe(lr=1e12, epochs=3))
    with pytest.raises(DivergedError, match="use a smaller learning rate"):
        oracle(wild, GO, seeds=1, cache=Cache(tmp_path))
    assert not list(Cache(tmp_path).entries())


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    oracle(TOY, Classes(1), seeds=1, rt=Runtime(seed=5), cache=Cache(tmp_path))
    assert torch.equal(before, torch.get_rng_state())
