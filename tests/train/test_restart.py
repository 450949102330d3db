"""The warm restart: its cost, its shrink, its guard, and that it is the loop it says it is."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.schedule import (
    LossTerms,
    StepExtras,
    WarmRestart,
    decay_weight,
    early_batches,
    joint_forward,
    run_schedule,
    warm_restart,
)

TASK = Classification(3)
RECIPE = Recipe(lr=0.05, momentum=0.9, weight_decay=5e-4, epochs=10, batch_size=16)


def rows(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.randn(count, 4, generator=rng, dtype=torch.float64)
    return View.all(TensorData(x + 3 * functional.one_hot(y, 4), y))


def network(seed=0, norm=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(4, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()


def ce(model):
    def loss(batch, progress):
        mean = TASK.losses(TASK.outputs(model, batch), batch).mean()
        return LossTerms(mean, mean)

    return loss


def restart(model, view, run, recipe=RECIPE, rt=None, loss=None, extra=None, guarded=False):
    return warm_restart(
        model,
        view,
        loss or ce(model),
        run,
        recipe,
        rt or Runtime(seed=5),
        never_seen=TASK.never_seen if guarded else math.inf,
        stream="test/retain",
        extra=extra,
    )


def state(model):
    return {k: t.clone() for k, t in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 30, 1001])
@pytest.mark.parametrize("span", [1 / 3, 1.0])
def test_the_pushes_of_a_run_sum_to_one_and_fall(steps, span):
    pushes = [decay_weight(t, steps, span) for t in range(steps)]
    assert math.fsum(pushes) == pytest.approx(1.0, rel=1e-12)
    assert pushes == sorted(pushes, reverse=True)


@pytest.mark.parametrize("t", [0, 1, 50, 98])
def test_a_push_is_the_height_of_the_falling_line_at_the_middle_of_its_step(t):
    width = 300 / 3
    assert decay_weight(t, 300) == pytest.approx((1 - (t + 0.5) / width) * 2 / width, rel=1e-9)


@pytest.mark.parametrize("shrink", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.02, 0.18, 1.0])
def test_without_a_learning_rate_every_parameter_shrinks_by_the_closed_form(shrink, share):
    model = network()
    before = state(model)
    restart(model, rows(90), WarmRestart(lr=0, share=share, shrink=shrink))
    want = {k: math.exp(-shrink) * t for k, t in before.items()}
    torch.testing.assert_close(state(model), want, rtol=1e-12, atol=0)


def test_a_share_of_nothing_changes_nothing():
    model = network(norm=True)
    before = state(model)
    assert restart(model, rows(90), WarmRestart(share=0)) == []
    assert same(state(model), before)


@pytest.mark.parametrize("count", [17, 33, 64, 65, 100, 129, 500])
@pytest.mark.parametrize("batch", [16, 64, 128])
@pytest.mark.parametrize(("forget", "part"), [(0, 0.0), (8, 0.15), (24, 0.25)])
@pytest.mark.parametrize("rate", [0.1, 1e6])
def test_a_restart_costs_at_most_its_share_of_retraining_and_not_much_less(
    count, batch, forget, part, rate
):
    """Also when it starts again; less than two steps are lost to rounding."""
    model, rt, retain = network(), Runtime(), rows(count)
    drops = rows(64, seed=1).endless_batches(max(forget, 1), rt, shuffle="test/forget")
    plain = ce(model)

    def loss(batch, progress):
        terms = plain(batch, progress)
        if progress >= part:
            return terms
        return terms._replace(total=terms.total + 0.0 * plain(next(drops), progress).total)

    recipe = RECIPE.model_copy(update={"batch_size": batch, "epochs": 40})
    extra = StepExtras(rows=forget, share=part, before=count if forget else 0)
    rt.cost.count_forward(extra.before, graph=False)
    restart(model, retain, WarmRestart(lr=rate), recipe, rt, loss, extra, guarded=rate > 1)
    full = 3 * recipe.epochs * count
    assert rt.cost.work <= 0.18 * full
    if rate < 1:
        full_batches = (count / retain.steps(batch)) / min(batch, count)
        step = min(batch + 1, count) + forget
        assert rt.cost.work > 0.18 * full * min(full_batches, 1) - 3 * (2 * step + forget)


@pytest.mark.parametrize(("share", "steps"), [(1e-9, 1), (0.1, 5), (0.55, 27), (2.0, 100)])
def test_the_number_of_steps_follows_from_the_share(share, steps):
    model, pushes = network(), []
    extra = StepExtras(after_step=pushes.append)
    restart(model, rows(80), WarmRestart(lr=0.1, share=share), extra=extra)
    assert len(pushes) == steps
    assert math.fsum(pushes) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("shrink", [0.0, 0.7])
def test_it_equals_a_loop_written_by_hand_bit_for_bit(optimizer, shrink):
    view, rt, steps = rows(70), Runtime(seed=5), 22
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "weight_decay": 0.01})
    share = (steps + 0.5) * 16 / (10 * 70)
    got, want = network(), network()
    restart(got, view, WarmRestart(lr=1.5, share=share, shrink=shrink), recipe, rt)
    options = {"lr": 0.0, "weight_decay": 0.01}
    opt = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, **options),
        "adam": lambda p: torch.optim.Adam(p, **options),
        "adamw": lambda p: torch.optim.AdamW(p, **options),
    }[optimizer](want.parameters())
    batches = islice(view.endless_batches(16, rt, shuffle="test/retain"), steps)
    for t, batch in enumerate(batches):
        opt.param_groups[0]["lr"] = 1.5 * 0.05 * (0.5 * (1 + math.cos(math.pi * t / steps)))
        opt.zero_grad()
        functional.cross_entropy(want(batch.x), batch.y, reduction="none").mean().backward()
        opt.step()
        now, then = (max(0.0, 1 - s * 3 / steps) ** 2 for s in (t, t + 1))
        with torch.no_grad():
            for p in want.parameters():
                p.mul_(math.exp(-shrink * (now - then)))
    if shrink:
        torch.testing.assert_close(state(got), state(want), rtol=1e-12, atol=1e-15)
    else:
        assert same(state(got), state(want))


def test_a_plain_run_goes_through_the_same_door_and_equals_its_recipe():
    view, rt = rows(65), Runtime(seed=5)
    got, want = network(), network()
    run = FineTuneSchedule.exact(lr=0.1, momentum=0.5, epochs=3, batch_size=16)
    progress = []
    plain = ce(got)

    def loss(batch, done):
        progress.append(done)
        return plain(batch, done)

    run_schedule(got, view, loss, run, RECIPE, rt, never_seen=TASK.never_seen, stream="test/retain")
    opt = torch.optim.SGD(want.parameters(), lr=0.1, momentum=0.5)
    for epoch in range(3):
        for batch in view.batches(16, rt, shuffle=f"test/retain/{epoch}"):
            opt.zero_grad()
            functional.cross_entropy(want(batch.x), batch.y, reduction="none").mean().backward()
            opt.step()
    assert same(state(got), state(want))
    assert progress == [t / 12 for t in range(12)]


def trained(norm=True):
    model = network(norm=norm)
    recipe = RECIPE.model_copy(update={"epochs": 30})
    loss = ce(model)
    run = FineTuneSchedule(recipe=recipe)
    run_schedule(
        model, rows(90), loss, run, RECIPE, Runtime(), never_seen=TASK.never_seen, stream="t"
    )
    return model


def mean_loss(model, view):
    model.eval()
    with torch.no_grad():
        return functional.cross_entropy(model(view.data.x), view.y).item()


def test_the_guard_saves_a_run_at_an_absurd_rate():
    """At the rate given the weights blow up; at half of it they do not."""
    model, rt, view = trained(), Runtime(seed=5), rows(90)
    scale = []

    def loss(batch, progress):
        if not scale or progress == 0.0:
            scale.append(len(scale))
        terms = ce(model)(batch, progress)
        return terms._replace(total=terms.total * (1e8 if len(scale) == 1 else 1.0))

    restart(model, view, WarmRestart(share=1.0), rt=rt, loss=loss, guarded=True)
    assert len(scale) == 2
    assert len(rt.notes) == 1
    assert rt.notes[0].startswith("warm restart: halfway the loss on retained rows was")
    assert mean_loss(model, view) < 0.25 * TASK.never_seen


def test_the_guard_fires_on_a_loss_that_is_not_a_number():
    model, rt = trained(), Runtime(seed=5)
    turns = []

    def loss(batch, progress):
        turns.extend([1] if progress == 0.0 else [])
        terms = ce(model)(batch, progress)
        return terms if len(turns) > 1 else LossTerms(terms.keep * math.nan, terms.total * math.nan)

    restart(model, rows(90), WarmRestart(share=0.5), rt=rt, loss=loss, guarded=True)
    assert len(rt.notes) == 1
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


def test_the_second_start_is_the_original_again_at_half_the_rate_for_the_other_half():
    """Normalisation statistics included; compared with a run of that rate and length."""
    view, rt = rows(80), Runtime(seed=5)
    got, want = trained(), trained()
    hopeless = 0.0
    run = WarmRestart(lr=1.0, share=0.4)
    warm_restart(got, view, ce(got), run, RECIPE, rt, never_seen=hopeless, stream="test/retain")
    half = replace(rt, notes=[])
    warm_restart(
        want,
        view,
        ce(want),
        WarmRestart(lr=0.5, share=0.2),
        RECIPE,
        half,
        never_seen=TASK.never_seen,
        stream="test/retain/again",
    )
    assert len(rt.notes) == 1
    assert not half.notes
    assert same(state(got), state(want))


def test_a_run_that_goes_well_is_left_alone():
    model, rt = trained(), Runtime(seed=5)
    restart(model, rows(90), WarmRestart(share=0.5), rt=rt, guarded=True)
    assert not rt.notes


def test_frozen_parameters_never_move():
    model = trained()
    model[0].requires_grad_(False)
    before = state(model)
    restart(model, rows(90), WarmRestart(share=0.5))
    after = state(model)
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert not torch.equal(after["3.weight"], before["3.weight"])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_the_early_share_of_steps_has_other_rows(share):
    draw = early_batches(rows(5), 2, share, RECIPE, Runtime(), stream="other")
    drawn = [draw(step / 10) for step in range(10)]
    assert [b is not None for b in drawn] == [step / 10 < share for step in range(10)]


def test_other_rows_come_round_in_a_new_order_until_all_were_met():
    draw = early_batches(rows(6), 2, 1.0, RECIPE, Runtime(), stream="other")
    turns = [torch.cat([draw(0.0).row for _ in range(3)]).tolist() for _ in range(4)]
    assert all(sorted(t) == list(range(6)) for t in turns)
    assert len({tuple(t) for t in turns}) > 1


@pytest.mark.parametrize("named", [False, True])
def test_two_batches_go_through_a_model_as_one(named):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network(norm=True)

        def forward(self, x):
            return self.net(x)

    view, rt = rows(12), Runtime()
    net = Named().train()
    batches = list(view.batches(8, rt))
    want = net(torch.cat([b.x for b in batches]))
    if named:
        batches = [replace(b, x={"x": b.x}) for b in batches]
    stay, go = joint_forward(TASK, net, *batches)
    torch.testing.assert_close(torch.cat([stay, go]), want)
    assert (len(stay), len(go), rt.cost.forward) == (8, 4, 12)
