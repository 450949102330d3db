"""Rewinding: back to the untrained state it is retraining, and what it refuses."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.module_state import tensors, tensors_equal
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.rewind import Rewind
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.train.checkpoint_history import DiskCheckpoints, MemoryCheckpoints
from unlearnkit.train.checkpointed_training import with_checkpoints
from unlearnkit.unlearning.run_method import run_method

GO = Rows(range(6))
TASKS = [Classification(3), MultiLabel(3), Regression()]


def same(a, b):
    ours, theirs = tensors(a), tensors(b)
    return all(tensors_equal(t, theirs[n]) for n, t in ours.items())


def made(tmp_path, *, task=None, history=None, **recipe):
    """Return a case that keeps checkpoints, and its original of seed 3."""
    case = toy_case(task or Classification(3))
    changes = {"epochs": 6, "schedule": "cosine", "momentum": 0.9, **recipe}
    case = case.replace(recipe=case.recipe.model_copy(update=changes))
    case = with_checkpoints(case, history or MemoryCheckpoints())
    return case, uk.train_original(case, seed=3, cache=Cache(tmp_path / "cache")).model


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_back_at_the_untrained_state_it_is_retraining_bit_for_bit(tmp_path, task, kind):
    history = MemoryCheckpoints() if kind == "memory" else DiskCheckpoints(tmp_path / "kept")
    case, model = made(tmp_path, task=task, history=history)
    done = run_method(model, case, GO, Rewind.build(fall=1.0, share=1.0), Runtime(seed=3))
    assert done.notes[0].startswith("rewind: went back to epoch 0, 6 epochs were left; exact")
    retrained = uk.oracle(case, GO, seeds=[3], cache=Cache(tmp_path / "cache")).models[0]
    assert same(done.model, retrained)
    plain = case.replace(train_model=None)
    assert not same(done.model, run_method(model, plain, GO, "finetune", Runtime(seed=3)).model)
    assert done.cost.backward == 6 * (len(case.train) - 6)


def test_a_state_is_kept_for_every_epoch_from_the_untrained_one(tmp_path):
    case, model = made(tmp_path)
    states = list(case.train_model.checkpoints.points(case.train_model.checkpoints.find(model)))
    assert [s.epoch for s in states] == list(range(7))
    assert all(torch.equal(states[-1].state[n], t) for n, t in model.state_dict().items())
    assert not any(torch.equal(states[0].state[n], t) for n, t in model.named_parameters())


def test_rows_that_no_step_had_read_leave_nothing_behind(tmp_path):
    """The sampler never draws the first six rows before the third epoch."""
    turns = []

    def late(y, rng):
        turns.append(0)
        order = torch.randperm(len(y), generator=rng)
        return order if len(turns) > 2 or len(y) < 60 else order[order >= 6].repeat(2)[: len(y)]

    case, model = made(tmp_path, sampler=late)
    done = run_method(model, case, GO, Rewind.build(fall=1e-6, share=1.0), Runtime(seed=3))
    assert "rewind: went back to epoch 5" in done.notes[0]
    assert "not exact" in done.notes[0]
    kept = case.train_model.checkpoints
    unread = [sorted(s.unread.tolist()) for s in kept.points(kept.find(model))]
    assert unread[1][:6] == unread[2][:6] == list(range(6))
    assert not unread[3]


def test_a_state_that_had_not_read_the_rows_is_exact_and_says_so(tmp_path):
    def never(y, rng):
        order = torch.randperm(len(y), generator=rng)
        return order[order >= 6].repeat(2)[: len(y)] if len(y) == 60 else order

    case, model = made(tmp_path, sampler=never)
    done = run_method(model, case, GO, Rewind.build(fall=1e-6, share=1.0), Runtime(seed=3))
    assert "exact: no step before had read a forget row" in done.notes[0]
    x, y = case.train.x.clone(), case.train.y.clone()
    x[:6] *= -30.0
    other = case.replace(train=type(case.train)(x, y))
    kept = MemoryCheckpoints()
    other = with_checkpoints(other.replace(train_model=None), kept)
    twin = uk.train_original(other, seed=3, cache=Cache(tmp_path / "second")).model
    assert same(twin, model)
    assert same(run_method(twin, other, GO, done.method, Runtime(seed=3)).model, done.model)


@pytest.mark.parametrize(("share", "epochs"), [(1.0, 6), (0.5, 3), (0.01, 1)])
def test_no_more_epochs_than_the_share_pays_for(tmp_path, share, epochs):
    case, model = made(tmp_path)
    done = run_method(model, case, GO, Rewind.build(fall=1.0, share=share), Runtime(seed=3))
    assert done.cost.backward == epochs * (len(case.train) - 6)
    assert (f"gone through in {epochs}" in done.notes[0]) == (epochs < 6)


def test_the_rest_of_the_schedule_is_gone_through_at_the_rates_that_were_left(tmp_path):
    """From epoch 2 of 6, in full: SGD by hand on one batch an epoch, at the cosine's own rates."""
    case, model = made(tmp_path, batch_size=64, momentum=0.0)
    kept = case.train_model.checkpoints
    state = list(kept.points(kept.find(model)))[2].state
    view = case.partition(GO).retain
    net = case.fresh()
    net.load_state_dict(state)
    params = list(net.parameters())
    for epoch in range(2, 6):
        loss = nn.functional.cross_entropy(net(view.data.x[view.rows]), view.y)
        rate = case.recipe.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 6)).item())
        for w, g in zip(params, torch.autograd.grad(loss, params), strict=True):
            w.data -= rate * (g + case.recipe.weight_decay * w.data)
    back = next(
        s
        for s in (0.999 - 0.001 * k for k in range(990))
        if "epoch 2," in run_method(model, case, GO, Rewind.build(fall=s), Runtime()).notes[0]
    )
    done = run_method(model, case, GO, Rewind.build(fall=back, share=1.0), Runtime(seed=3))
    for name, w in done.model.named_parameters():
        torch.testing.assert_close(w.detach(), dict(net.named_parameters())[name].detach())


def test_the_placebo_models_have_a_history_of_their_own(tmp_path):
    case, _ = made(tmp_path)
    never = uk.oracle(case, GO, seeds=1, cache=Cache(tmp_path / "cache")).models[0]
    done = run_method(never, case, GO, "rewind", Runtime())
    assert "exact: no step before had read a forget row" in done.notes[0]


def test_without_checkpoints_and_with_those_of_another_model_it_refuses(tmp_path):
    case, model = made(tmp_path)
    with pytest.raises(UnsupportedError, match="needs training checkpoints"):
        run_method(model, toy_case(Classification(3)), GO, "rewind")
    with pytest.raises(InputError, match="of no training that led to this model"):
        run_method(case.fresh(), case, GO, "rewind")
    with pytest.raises(InputError, match="models must be trained by a recipe"):
        with_checkpoints(case, MemoryCheckpoints())
    with pytest.raises(InputError, match="every must be at least 1 epoch"):
        MemoryCheckpoints(every=0)


def test_a_history_whose_first_state_is_lost_is_refused(tmp_path):
    case, model = made(tmp_path, history=DiskCheckpoints(tmp_path / "kept"))
    next((tmp_path / "kept").glob("*/epoch-000000.safetensors")).unlink()
    with pytest.raises(InputError, match="the untrained state is not there"):
        run_method(model, case, GO, "rewind")
