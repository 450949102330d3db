import copy

import pytest
import torch
from torch import nn

from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.data_free.input_optimization import freeze, optimise_inputs, random_inputs

ADAM = Recipe(optimizer="adam", lr=0.1)


def net():
    rng = torch.Generator().manual_seed(4)
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()
    with torch.no_grad():
        for t in (*model.parameters(), model[1].running_mean):
            t.copy_(torch.randn(t.shape, generator=rng, dtype=t.dtype))
    model[0].bias.requires_grad_(False)
    return model


def start(rt, targets):
    return random_inputs(torch.tensor(targets), (5,), rt, stream="made", dtype=torch.float64)


def rise(out, batch):
    return -Classification(3).losses(out, batch).sum()


def test_no_tensor_and_no_flag_of_the_model_changes():
    model, rt = net(), Runtime()
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    made = optimise_inputs(model, start(rt, [0, 1, 1]), Classification(3), rise, ADAM, rt, steps=5)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not made.x.requires_grad


def test_in_train_mode_running_statistics_follow_the_inputs_and_weights_do_not():
    model, rt = net(), Runtime()
    before = copy.deepcopy(model.state_dict())
    batch = start(rt, [0, 1, 1])
    optimise_inputs(model, batch, Classification(3), rise, ADAM, rt, steps=5, norm="train")
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_flags_come_back_after_an_error():
    model = net()

    def fail():
        with freeze(model):
            assert not model.training
            assert not any(p.requires_grad for p in model.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert model[0].weight.requires_grad
    assert not model[0].bias.requires_grad


def test_inputs_for_several_targets_move_as_if_each_were_alone():
    model, rt = net(), Runtime()
    batch = start(rt, [0, 0, 1, 2])
    task = Classification(3)
    together = optimise_inputs(model, batch, task, rise, ADAM, rt, steps=9).x
    for rows in ([0, 1], [2], [3]):
        alone = optimise_inputs(
            model, batch.pick(torch.tensor(rows)), task, rise, ADAM, rt, steps=9
        )
        torch.testing.assert_close(together[rows], alone.x, rtol=1e-9, atol=1e-9)


def test_no_step_leaves_the_draw_as_it_is():
    model, rt = net(), Runtime(seed=3)
    batch = start(rt, [0, 1])
    made = optimise_inputs(model, batch, Classification(3), rise, ADAM, rt, steps=0)
    want = torch.randn(2, 5, generator=rt.rng("made"), dtype=torch.float64)
    assert torch.equal(made.x, want)
    assert rt.cost.forward == 0


def test_the_model_is_given_what_is_shown_and_the_rows_are_metered():
    model, rt = nn.Linear(5, 3, dtype=torch.float64), Runtime()
    batch = start(rt, [1, 2])
    step = Recipe(lr=0.5, momentum=0.0)
    made = optimise_inputs(
        model, batch, Classification(3), rise, step, rt, steps=1, shown=lambda z: 7 + 3 * z
    )
    p = ((7 + 3 * batch.x) @ model.weight.T + model.bias).softmax(1).detach()
    slope = 3 * (p - torch.eye(3, dtype=torch.float64)[[1, 2]]) @ model.weight.detach()
    torch.testing.assert_close(made.x, batch.x + 0.5 * slope, rtol=1e-10, atol=1e-10)
    assert (rt.cost.forward, rt.cost.backward) == (2, 2)
