"""The guard around every method, where it is not a method that is at fault."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Info, Method, Need
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.oracles import train_original
from unlearnkit.testing.subject import bits, generators, same_bits, toy
from unlearnkit.train.loop import fit
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.unlearning.run_method import fresh_model, run_method

TOY = toy("classification")
GO = Rows(*range(11))


class Retrain(Method):
    """From a fresh model."""

    id = "again"
    info = Info(
        title="x",
        cite="x",
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification"}),
    )

    def apply(self, p, rt):
        fresh = p.fresh()
        fit(fresh, p.retain, p.task, p.recipe.model_copy(update={"epochs": 1}), rt, stream="again")
        return fresh


def net():
    return fresh_model(TOY, Runtime(seed=3))


def test_each_run_on_one_runtime_has_its_own_cost_and_notes():
    rt, case = Runtime(), TOY.replace(recipe=None)
    first = run_method(net(), case, GO, "finetune", rt)
    second = run_method(net(), case, GO, "finetune", rt)
    assert first.cost == second.cost
    assert first.cost.forward > 0
    assert first.notes == second.notes
    assert any("recipe" in note for note in first.notes)
    assert rt.cost == Cost()
    assert rt.notes == []


def test_global_generators_are_seeded_inside_and_come_back():
    before = generators()
    drawn = []
    for _ in range(2):
        with seeded_global_rngs(Runtime(seed=4), "x"):
            numpy = np.random.rand()  # noqa: NPY002  # the global one
            drawn.append((torch.rand(()).item(), random.random(), numpy))
    assert drawn[0] == drawn[1]
    assert generators() == before


def test_global_generators_come_back_after_an_error():
    before = generators()

    def interrupted():
        with seeded_global_rngs(Runtime(), "x"):
            torch.rand(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert generators() == before


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(InputError, match="no parameter requires gradients"):
        run_method(net().requires_grad_(False), TOY, GO, "finetune")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    model = net()
    with torch.no_grad():
        model[0].bias[2] = bad
    with pytest.raises(InputError, match=r"0\.bias has 1 of 16 values"):
        run_method(model, TOY, GO, "finetune")


def test_something_else_than_a_model_is_refused():
    with pytest.raises(InputError, match="must be a torch module, got OrderedDict"):
        run_method(net().state_dict(), TOY, GO, "finetune")


def test_a_model_that_keeps_a_graph_is_refused_in_words():
    model = net()
    model.kept = model(torch.zeros(1, 6))
    with pytest.raises(InputError, match="cannot be copied"):
        run_method(model, TOY, GO, "finetune")


def test_a_factory_that_gives_one_module_twice_is_refused():
    one = nn.Linear(6, 3)
    case = TOY.replace(fresh=lambda: one)
    fresh_model(case, Runtime(seed=1))
    with pytest.raises(InputError, match="a new module each time"):
        fresh_model(case, Runtime(seed=2))


def test_a_factory_of_another_architecture_is_refused_before_training():
    case = TOY.replace(fresh=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    with pytest.raises(InputError, match=r"another architecture.*0\.weight is of shape \(8, 6\)"):
        run_method(net(), case, GO, Retrain())


def test_frozen_layers_of_a_fresh_model_are_the_given_models():
    model = net()
    model[0].requires_grad_(False)
    done = run_method(model, TOY, GO, Retrain())
    assert torch.equal(done.model[0].weight, model[0].weight)
    assert not done.model[0].weight.requires_grad
    assert not torch.equal(done.model[2].weight, model[2].weight)


def test_both_models_of_a_half_precision_run_come_back_in_half_precision():
    done = run_method(net().half(), TOY, GO, "finetune")
    assert {p.dtype for p in done.model.parameters()} == {torch.float16}
    assert {p.dtype for p in done.original.parameters()} == {torch.float16}


def test_the_original_of_a_result_is_frozen_in_eval_mode_and_apart_from_the_input():
    model = net().train()
    done = run_method(model, TOY, GO, "finetune")
    assert same_bits(bits(done.original), bits(model))
    assert not done.original.training
    assert not any(p.requires_grad for p in done.original.parameters())
    assert done.original[0].weight.data_ptr() != model[0].weight.data_ptr()


def test_training_from_scratch_leaves_global_generators_alone():
    before = generators()
    train_original(TOY)
    assert generators() == before


class Expanded(nn.Module):
    """Half-precision weights beside a buffer whose rows share their memory."""

    def __init__(self):
        super().__init__()
        width = TOY.train.x.shape[1]
        self.head = nn.Linear(width, 3).half()
        self.register_buffer("scale", torch.ones(1, dtype=torch.half).expand(width))

    def forward(self, x):
        return self.head(x * self.scale)


def test_a_buffer_whose_elements_share_memory_comes_back_with_its_values():
    case = TOY.replace(fresh=Expanded)
    done = run_method(fresh_model(case, Runtime()), case, GO, "finetune")
    assert torch.equal(done.model.scale, torch.ones_like(done.model.scale))
    assert done.model.scale.dtype == torch.half
