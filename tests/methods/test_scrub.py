import math

import pytest
import torch

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.scrub import Scrub
from unlearnkit.train.early_stopping import alike
from unlearnkit.unlearning.run_method import run_method

GO = Rows(0, 1, 2, 3)
INF = float("inf")


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softened(z, t):
    e = [math.exp(v / t) for v in z]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
def test_the_distance_puts_the_teacher_first_and_scales_with_the_square(clouds, t):
    _, case = clouds()
    teacher, student = [2.0, -1.0, 0.5, 0.0], [0.0, 1.0, 3.0, -2.0]

    class Only:
        task = case.task

    out, target = torch.tensor([student]).double(), torch.tensor([teacher]).double()
    got = Scrub(temperature=t).distance(Only, out, target).item()
    p, q = softened(teacher, t), softened(student, t)
    assert got == pytest.approx(t * t * kl(p, q), rel=1e-12)
    assert abs(got - t * t * kl(q, p)) > 0.05


def by_hand(net, case, *, lrs, forget, gamma, alpha=0.3, t=3.0):
    """Take full-batch steps with the gradients of a linear softmax model, written out."""
    x, y = case.train.x, case.train.y
    w, b = net.weight.detach(), net.bias.detach()
    teacher = ((x @ w.T + b) / t).softmax(1)
    right = torch.eye(4, dtype=torch.float64)[y]

    def step(w, b, rows, e, lr):
        e = e[rows] / len(x[rows])
        return w - lr * e.T @ x[rows], b - lr * e.sum(0)

    for k, lr in enumerate(lrs):
        if k < forget:
            z = x @ w.T + b
            w, b = step(w, b, slice(0, 4), -t * ((z / t).softmax(1) - teacher), lr)
        z = x @ w.T + b
        stay = gamma * (z.softmax(1) - right) + alpha * t * ((z / t).softmax(1) - teacher)
        w, b = step(w, b, slice(4, None), stay, lr)
    return w, b


@pytest.mark.parametrize("t", [1.0, 3.0])
@pytest.mark.parametrize("forget_epochs", [0, 2, 4])
def test_follows_the_published_steps_on_a_linear_model(clouds, t, forget_epochs):
    net, case = clouds()
    how = Scrub(
        retain_loss=0.9,
        retain_divergence=0.3,
        temperature=t,
        early=forget_epochs / 4,
        cap=INF,
        nudge=0.0,
        run=FineTuneSchedule.exact(lr=0.1, momentum=0.0, epochs=4, batch_size=64),
    )
    got = run_method(net, case, GO, how).model
    w, b = by_hand(net, case, lrs=[0.1] * 4, forget=forget_epochs, gamma=0.9, t=t)
    torch.testing.assert_close(got.weight.detach(), w, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.bias.detach(), b, rtol=1e-9, atol=1e-9)


def test_the_teacher_stays_bit_identical_while_the_students_parameters_move(layered):
    model, case = layered
    before = {n: t.clone() for n, t in model.state_dict().items()}
    done = run_method(model, case, GO, Scrub())
    for name, t in done.original.state_dict().items():
        assert torch.equal(t, before[name])
    moved = dict(done.model.named_parameters())
    assert all(not torch.equal(t, before[n]) for n, t in moved.items())


@pytest.mark.parametrize(("nudge", "moves"), [(0.0, False), (0.01, True)])
def test_a_forget_pass_moves_a_plain_model_only_after_a_nudge(clouds, nudge, moves):
    net, case = clouds()
    how = Scrub(
        retain_loss=0.0,
        retain_divergence=0.0,
        early=1,
        nudge=nudge,
        run=FineTuneSchedule.exact(lr=1.0, momentum=0.0, epochs=1, batch_size=64),
    )
    got = run_method(net, case, GO, how).model.weight.detach()
    # what is left of the gradient is rounding of two equal softmaxes
    assert ((got - net.weight).abs().max() > 1e-12) == moves


def test_a_divergence_above_the_cap_does_not_push(clouds):
    net, case = clouds()
    base = {
        "retain_loss": 0.0,
        "retain_divergence": 0.0,
        "nudge": 0.5,
        "run": FineTuneSchedule(share=0.2),
        "early": 1,
    }

    def weight(**more):
        return run_method(net, case, GO, Scrub(**base, **more)).model.weight

    assert torch.equal(weight(cap=1e-12), weight(cap=1e-13))
    assert not torch.equal(weight(cap=1e-12), weight(cap=INF))


def states(model, case, epochs):
    """Return the states after each number of epochs, as runs of their own."""
    out = []
    for n in range(1, epochs + 1):
        run = FineTuneSchedule.exact(lr=0.5, momentum=0.5, epochs=n, batch_size=16)
        how = Scrub(run=run, early=min(1, 3 / n), nudge=0.3, forget_batch=1)
        out.append(run_method(model, case, GO, how, Runtime(seed=1)).model)
    return out


def test_rewinding_returns_the_epoch_with_the_error_of_unseen_rows(toy):
    model, case = toy
    parts = case.partition(GO)

    def error(m, x, y):
        return (m(x).argmax(1) != y).double().mean().item()

    each = states(model, case, 6)
    seen = alike(type(parts.forget).all(case.validation), parts.forget)
    goal = error(each[-1], case.validation.x[seen.rows], seen.y)
    errors = [error(m, case.train.x[:4], case.train.y[:4]) for m in each]
    best = min(range(6), key=lambda e: abs(errors[e] - goal))
    run = FineTuneSchedule.exact(lr=0.5, momentum=0.5, epochs=6, batch_size=16)
    how = Scrub(run=run, early=3 / 6, nudge=0.3, forget_batch=1, rewind="unseen")
    got = run_method(model, case, GO, how, Runtime(seed=1)).model
    assert len(set(errors)) > 1, errors
    assert best < 5
    assert torch.equal(got[0].weight, each[best][0].weight)


def test_rewinding_without_validation_rows_is_refused(toy):
    model, case = toy
    with pytest.raises(UnsupportedError, match="rewind needs validation rows"):
        run_method(model, case.replace(validation=None), GO, Scrub(rewind="unseen"))


@pytest.mark.parametrize(("size", "rows"), [(None, 20), (5, 20), (7, 20)])
def test_forget_batches_have_their_own_size_and_all_rows_are_met(toy, size, rows):
    model, case = toy
    how = Scrub(
        forget_batch=size,
        early=1,
        run=FineTuneSchedule.exact(lr=0.1, momentum=0.0, epochs=1, batch_size=16),
    )
    assert run_method(model, case, Classes(1), how).cost.backward == rows + 40


def test_the_teacher_is_asked_once_a_row_however_long_the_run(toy):
    model, case = toy

    def asked(epochs):
        run = FineTuneSchedule.exact(lr=0.1, momentum=0.0, epochs=epochs, batch_size=16)
        cost = run_method(model, case, GO, Scrub(run=run, early=1)).cost
        return cost.forward - cost.backward

    assert asked(1) == asked(4) == 60


def test_augmented_rows_are_shown_to_teacher_and_student_alike(clouds):
    _, case = clouds()
    g = torch.Generator().manual_seed(3)
    x = torch.randn(24, 1, 8, 8, generator=g)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4, 64, generator=g))
    pictures = case.replace(train=type(case.train)(x, torch.arange(24) % 4), validation=None)
    run = FineTuneSchedule.exact(lr=1.0, momentum=0.0, epochs=1, batch_size=8, augment="flip_crop")
    how = Scrub(retain_loss=0.0, retain_divergence=1.0, nudge=0.0, early=1, run=run)
    got = run_method(net, pictures, GO, how).model
    # equal outputs on equal inputs: no divergence, hence no gradient beyond rounding
    torch.testing.assert_close(got[1].weight, net[1].weight, rtol=0, atol=1e-4)
