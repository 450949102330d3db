import pytest
import torch
from torch import nn

from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.retrain import Retrain
from unlearnkit.train.loop import fit
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.unlearning.run_method import fresh_model, run_method

GO = Rows(0, 1, 2, 3)


def state(model):
    return {name: t.detach() for name, t in model.state_dict().items()}


def test_reaches_the_least_squares_solution_of_the_retained_rows(line):
    net, case = line()
    case = case.replace(recipe=Recipe(lr=0.3, momentum=0.5, epochs=300, batch_size=64))
    got = run_method(net, case, GO, Retrain()).model.weight.detach()
    want = torch.linalg.lstsq(case.train.x[4:], case.train.y[4:]).solution
    torch.testing.assert_close(got, want.T, rtol=1e-9, atol=1e-9)


def test_is_what_training_a_fresh_model_gives(layered):
    model, case = layered
    got = run_method(model, case, GO, Retrain(), Runtime(seed=5)).model
    rt = Runtime(seed=5)
    with seeded_global_rngs(rt):
        want = fresh_model(case, rt)
        fit(want, case.partition(GO).retain, case.task, case.recipe, rt, stream="retain")
    torch.testing.assert_close(state(got), state(want), rtol=0, atol=0)


def test_the_weights_that_came_do_not_matter(layered):
    model, case = layered
    other = case.fresh()
    a, b = (state(run_method(m, case, GO, Retrain()).model) for m in (model, other))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_every_layer_starts_over_also_inside_blocks(layered):
    model, case = layered
    # Steps so small that they move no weight of any size; running statistics move all the same.
    case = case.replace(recipe=Recipe(lr=1e-30, epochs=1))
    done = run_method(model, case, GO, Retrain(), Runtime(seed=2)).model
    got, want = (dict(m.named_parameters()) for m in (done, fresh_model(case, Runtime(seed=2))))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-25)
    assert not torch.equal(got["4.0.weight"], model.state_dict()["4.0.weight"])


def test_frozen_layers_keep_their_weights(layered):
    _, case = layered
    frozen = case.fresh()
    frozen[0].requires_grad_(False)
    got = run_method(frozen, case, GO, Retrain()).model
    assert torch.equal(got[0].weight, frozen[0].weight)
    assert not torch.equal(got[4][0].weight, frozen[4][0].weight)


def test_a_factory_of_another_architecture_is_refused(toy):
    model, case = toy
    wrong = case.replace(fresh=lambda: nn.Linear(6, 3))
    with pytest.raises(InputError, match="fresh: builds another architecture"):
        run_method(model, wrong, GO, Retrain())


def test_forget_rows_are_not_read(line):
    net, case = line()
    x = case.train.x.clone()
    x[:4] = 1e6
    other = case.replace(train=type(case.train)(x, case.train.y))
    assert len(View.all(other.train)) == 20
    a, b = (run_method(net, c, GO, Retrain()).model.weight for c in (case, other))
    assert torch.equal(a, b)
