"""Relearning on small problems with known answers, and beside loops written another way."""

import copy
import math

import pytest
import torch
from scipy import stats
from torch import nn

from unlearnkit.catalog import metrics
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics import relearning_speed as family
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.loop import fit
from unlearnkit.train.relearning import (
    RelearningTarget,
    fine_tuning_recipe,
    published_steps,
    relearn,
    training_losses,
)

GONE, CLASSES = 2, 3
TASK = Classification(CLASSES)
RECIPE = Recipe(lr=0.1, momentum=0.9, epochs=10, batch_size=16)
RT = Runtime()


@pytest.fixture(autouse=True)
def _full_length(_short_lessons, monkeypatch):
    monkeypatch.setattr(family, "CAP", 100)
    monkeypatch.setattr(family, "ORDERS", 5)
    monkeypatch.setattr(family, "LESSONS", 3)
    monkeypatch.setattr(family, "PUBLISHED_ROWS", 5_000)


def clouds(count, seed, noise=0.6):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    centre = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]], dtype=torch.float64)
    return centre[y] + noise * torch.randn(count, 2, generator=rng, dtype=torch.float64), y


def net(seed, width=8):
    rng = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, CLASSES)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=rng))
    return model


def taught(seed, view):
    model = net(seed)
    fit(model, view, TASK, RECIPE, Runtime(seed=seed), stream="taught")
    return model


@pytest.fixture(scope="module")
def world():
    """Return models and rows of a request to forget class 2 of three clouds."""
    x, y = clouds(90, 0)
    data = TensorData(x, y)
    forget, retain = (View(data, m.nonzero()[:, 0]) for m in (y == GONE, y != GONE))
    a, b = clouds(60, 1)
    test = TensorData(a, b)
    views = {
        Split.FORGET: forget,
        Split.RETAIN: retain,
        Split.HELD_OUT: View(test, (b == GONE).nonzero()[:, 0]),
        Split.TEST: View(test, (b != GONE).nonzero()[:, 0]),
    }
    models = {"original": taught(0, View.all(data))}
    models |= {f"oracle/{k}": taught(10 + k, retain) for k in range(3)}
    return models, views


def seen(world, unlearned, **changes):
    models, views = world
    return Evidence(
        models | {"unlearned": unlearned}, views, TASK, RT, **({"recipe": RECIPE} | changes)
    )


def score(name, e):
    return metrics()[name](e)


def test_the_original_has_nothing_to_relearn(world):
    e = seen(world, world[0]["original"])
    assert score("relearn_steps", e).value == 0
    assert score("relearn_area", e).value == 0
    assert score("ain", e).value == 0


def test_a_retrained_model_in_the_seat_of_all_has_an_index_of_one(world):
    models, views = world
    same = dict.fromkeys(["unlearned", "oracle/0", "oracle/1"], models["oracle/0"])
    e = Evidence({"original": models["original"], **same}, views, TASK, RT, recipe=RECIPE)
    assert score("ain", e).value == 1.0
    assert score("relearn_steps", e).value > 0


def test_the_index_is_the_ratio_of_mean_steps(world):
    unlearned = copy.deepcopy(world[0]["original"])
    with torch.no_grad():
        unlearned[-1].bias[GONE] -= 8.0
    e = seen(world, unlearned)
    oracles = [
        score("relearn_steps", e.with_candidate(ModelRole.ORACLE, k)).value for k in range(3)
    ]
    mine = score("relearn_steps", e).value
    assert 0 < mine < family.CAP
    assert score("ain", e).value == pytest.approx(3 * mine / sum(oracles), rel=1e-12)


def test_the_steps_are_those_of_a_loop_written_out(world):
    models, views = world
    forget, retain, held = (views[s] for s in family.SEEN)
    target = RelearningTarget.near(models["original"], held, 0.05, TASK, RT)
    curve = relearn(
        models["oracle/0"],
        forget,
        retain,
        target,
        TASK,
        fine_tuning_recipe(RECIPE),
        RT,
        order=3,
        cap=100,
    )

    model = copy.deepcopy(models["oracle/0"])
    go = round(16 * len(forget) / (len(forget) + len(retain)))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    drops = forget.endless_batches(go, RT, shuffle="relearn/3/forget")
    keeps = retain.endless_batches(16 - go, RT, shuffle="relearn/3/retain")

    def right():
        with torch.no_grad():
            x, y = held.data.x[held.rows], held.y
            return (model(x).argmax(1) == y).double().mean().item()

    missing = []
    while right() < target.level:
        missing.append(1 - right() / target.level)
        drop, keep = next(drops), next(keeps)
        out = model(torch.cat([keep.x, drop.x]))
        loss = nn.functional.cross_entropy(out, torch.cat([keep.y, drop.y]))
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert curve.met
    assert curve.steps == len(missing) > 3
    assert curve.area == pytest.approx(sum(missing), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
def test_a_lower_target_never_takes_longer(world, share):
    models, views = world

    def steps(much):
        target = RelearningTarget.near(models["original"], views[Split.HELD_OUT], much, TASK, RT)
        return relearn(
            models["oracle/1"], views[Split.FORGET], views[Split.RETAIN], target, TASK,
            fine_tuning_recipe(RECIPE), RT, order=0, cap=100,
        ).steps  # fmt: skip

    assert steps(share + 0.1) <= steps(share)


def test_the_target_of_a_regression_is_a_loss_a_twentieth_above(world):
    x, y = torch.arange(4.0)[:, None], torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    rows = View.all(TensorData(x, y))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.0)
    target = RelearningTarget.near(model, rows, 0.05, Regression(1), RT)
    losses = (model(x) - y).square().mean().item()
    assert not target.rate
    assert target.level == pytest.approx(1.05 * losses, rel=1e-6)
    assert target.short(model, Regression(1), RT) == 0.0
    with torch.no_grad():
        model.bias.fill_(3.0)
    worse = (model(x) - y).square().mean().item()
    want = 1 - target.level / worse
    assert target.short(model, Regression(1), RT) == pytest.approx(want, rel=1e-6)


def test_a_target_that_is_not_met_is_censored_and_never_capped_over_capped(world, monkeypatch):
    monkeypatch.setattr(family, "CAP", 2)
    masked = copy.deepcopy(world[0]["original"])
    with torch.no_grad():
        masked[-1].bias[GONE] = -1e4
    e = seen(world, masked)
    steps, index = score("relearn_steps", e), score("ain", e)
    assert steps.value == 2
    assert ">2 in 5 of 5 orders" in steps.note
    assert steps.interval is None
    assert math.isnan(index.value)
    assert "neither model nor oracles" in index.note


def test_a_censored_index_is_said_to_be_a_lower_bound(world, monkeypatch):
    monkeypatch.setattr(family, "CAP", 40)
    masked = copy.deepcopy(world[0]["original"])
    with torch.no_grad():
        masked[-1].bias[GONE] = -1e4
    index = score("ain", seen(world, masked))
    assert index.value > 1
    assert "at least that: >40 steps in 5 of 5 orders" in index.note


def test_the_index_is_undefined_where_oracles_need_not_relearn(world):
    models, views = world
    e = Evidence(
        dict.fromkeys(["original", "unlearned", "oracle/0"], models["original"]),
        views,
        TASK,
        RT,
        recipe=RECIPE,
    )
    index = score("ain", e)
    assert math.isnan(index.value)
    assert "without relearning" in index.note


def published_loop(model, x, y, held, level, order):
    """Return the published count: ten passes of 256, a look after each step, no look before."""
    model = copy.deepcopy(model)
    opt, steps = torch.optim.Adam(model.parameters(), lr=1e-3), 0
    for epoch in range(10):
        rows = torch.randperm(len(y), generator=RT.rng(f"{order}/{epoch}"))
        for part in torch.split(rows, 256):
            model.train()
            loss = nn.functional.cross_entropy(model(x[part]), y[part])
            opt.zero_grad()
            loss.backward()
            opt.step()
            steps += 1
            model.eval()
            with torch.no_grad():
                right = (model(held[0]).argmax(1) == held[1]).double().mean().item()
            if right >= level:
                return steps
    return steps


@pytest.mark.parametrize("who", ["original", "oracle/0"])
def test_the_reference_index_counts_as_published(world, who):
    models, views = world
    held = views[Split.HELD_OUT]
    target = RelearningTarget.near(models["original"], held, 0.05, TASK, RT)
    go, stay = views[Split.FORGET], views[Split.RETAIN]
    rows = View(go.data, torch.cat([go.rows, stay.rows]))
    want = published_loop(
        models[who], rows.data.x[rows.rows], rows.y, (held.data.x[held.rows], held.y),
        target.level, "relearn/published",
    )  # fmt: skip
    assert published_steps(models[who], rows, target, TASK, RT, epochs=10) == want


def test_the_reference_index_counts_one_step_for_a_model_that_never_forgot(world):
    models, views = world
    e = seen(world, models["original"])
    held = views[Split.HELD_OUT]
    target = RelearningTarget.near(models["original"], held, 0.05, TASK, RT)
    go, stay = views[Split.FORGET], views[Split.RETAIN]
    rows = View(go.data, torch.cat([go.rows, stay.rows]))
    below = published_steps(models["oracle/0"], rows, target, TASK, RT, epochs=10)
    assert score("ain_reference", e).value == pytest.approx(1 / below)


def test_copies_are_taught_and_the_models_and_generators_left_alone(world):
    models, _ = world
    before = {n: copy.deepcopy(m.state_dict()) for n, m in models.items()}
    state = torch.get_rng_state()
    e = seen(world, models["oracle/2"])
    for name in ("relearn_steps", "ain", "ain_reference", "relearn_gap"):
        score(name, e)
    for name, m in models.items():
        assert all(torch.equal(t, before[name][k]) for k, t in m.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_copies_can_be_taught_too(world):
    model = copy.deepcopy(world[0]["oracle/0"]).requires_grad_(False)
    e = seen(world, world[0]["oracle/0"])
    frozen = seen(world, model)
    assert score("relearn_steps", frozen).value == score("relearn_steps", e).value


def at_random(seed, epochs):
    """Return evidence of rows with random labels: nothing is known of them but by heart."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(120, 6, generator=rng, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (120,), generator=rng)
    go, held = View.all(TensorData(x[:60], y[:60])), View.all(TensorData(x[60:], y[60:]))

    def build(k):
        init = torch.Generator().manual_seed(k)
        model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, CLASSES)).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.4 * torch.randn(p.shape, generator=init))
        return model

    model = build(seed)
    fit(model, go, TASK, RECIPE.model_copy(update={"epochs": epochs}), RT, stream="by heart")
    views = {Split.FORGET: go, Split.HELD_OUT: held}
    return Evidence({"unlearned": model}, views, TASK, RT, random=build, recipe=RECIPE)


@pytest.mark.parametrize("seed", range(3))
def test_rows_known_by_heart_are_learned_faster_than_fresh_ones(seed):
    e = at_random(seed, epochs=20)
    found, bare = score("relearn_gap", e), score("relearn_gap_untrained", e)
    assert found.value > found.interval[0] > 0
    assert bare.interval[0] < 0 < bare.interval[1]


def test_an_untrained_model_is_accused_as_often_as_the_level_says():
    lows = [score("relearn_gap", at_random(s, epochs=0)).interval for s in range(20)]
    wrong = sum(low > 0 or high < 0 for low, high in lows)
    # 95 % intervals: 4 or more of 20 have a chance of 1.6 %.
    assert wrong <= 3


def test_the_gap_is_the_difference_of_mean_losses_with_welchs_interval(monkeypatch):
    monkeypatch.setattr(family, "LESSONS", 1)
    e = at_random(5, epochs=5)
    found = score("relearn_gap", e)
    go, fresh = e._recalled["unlearned"]["lessons"]
    want = stats.ttest_ind(fresh.numpy(), go.numpy(), equal_var=False)
    assert found.value == pytest.approx((fresh.mean() - go.mean()).item(), rel=1e-12)
    assert found.interval == pytest.approx(tuple(want.confidence_interval(0.95)), rel=1e-9)


def test_the_losses_of_a_lesson_are_those_that_rows_had_when_their_turn_came():
    e = at_random(1, epochs=2)
    view, model = e.views[Split.FORGET], e.model(ModelRole.UNLEARNED)
    got = training_losses(model, view, TASK, fine_tuning_recipe(RECIPE, 2), RT, order=0)
    twin, want = copy.deepcopy(model), torch.zeros(len(view), dtype=torch.float64)
    opt = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(2):
        for batch in view.batches(16, RT, shuffle=f"lesson/0/{epoch}"):
            losses = nn.functional.cross_entropy(twin(batch.x), batch.y, reduction="none")
            want[batch.row] += losses.detach() / 2
            opt.zero_grad()
            losses.mean().backward()
            opt.step()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_both_kinds_of_rows_have_equal_class_counts():
    e = at_random(0, epochs=0)
    go, fresh = family._pair(e)
    assert len(go) == len(fresh) > 40
    assert torch.equal(go.y, fresh.y)


def test_whole_classes_are_refused_by_the_test_that_needs_random_rows(world):
    e = seen(world, world[0]["original"], at_random=False)
    found = score("relearn_gap", e)
    assert math.isnan(found.value)
    assert "drawn at random" in found.note
