import pytest
import torch

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Rows
from unlearnkit.methods.neggrad_plus import NegGradPlus
from unlearnkit.unlearning.run_method import run_method

GO = Rows(0, 1, 2, 3)
INF = float("inf")
STEP = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)


@pytest.mark.parametrize("balance", [0.05, 0.3, 1.0])
def test_a_step_follows_the_difference_of_the_two_gradients(line, balance):
    net, case = line()
    how = NegGradPlus(balance=balance, early=1, run=STEP, cap=INF)
    got = run_method(net, case, GO, how).model.weight.detach()
    x, y, w = case.train.x, case.train.y, net.weight.detach().T
    rows = 2 * (x @ w - y) * x
    grad = (1 - balance) * rows[4:].mean(0) - balance * rows[:4].mean(0)
    torch.testing.assert_close(got, (w - 0.05 * grad[:, None]).T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "rows"), [(None, 4), (2, 2), (9, 4)])
def test_a_forget_batch_has_as_many_rows_as_asked(line, size, rows):
    net, case = line()
    how = NegGradPlus(balance=0.3, early=1, run=STEP, forget_batch=size)
    assert run_method(net, case, GO, how).cost.backward == 16 + rows


def test_a_cap_below_every_forget_loss_leaves_the_retain_term(line):
    net, case = line()
    how = NegGradPlus(balance=0.3, early=1, run=STEP, cap=1e-12)
    got = run_method(net, case, GO, how).model.weight.detach()
    x, y, w = case.train.x[4:], case.train.y[4:], net.weight.detach().T
    grad = 0.7 * (2 * (x @ w - y) * x).mean(0)
    torch.testing.assert_close(got, (w - 0.05 * grad[:, None]).T, rtol=1e-12, atol=1e-12)


def test_the_length_of_the_forget_set_does_not_matter(line):
    net, case = line()
    x, y = case.train.x, case.train.y

    def after(times):
        parts = Case.from_parts(
            forget=(x[:4].repeat(times, 1), y[:4].repeat(times, 1)),
            retain=(x[4:], y[4:]),
            task=case.task,
            recipe=case.recipe,
        )
        how = NegGradPlus(balance=0.2, early=1, run=STEP, cap=INF)
        return run_method(net, parts, None, how).model.weight.detach()

    torch.testing.assert_close(after(1), after(8), rtol=1e-12, atol=1e-12)


def test_capped_ascent_stays_finite_where_the_published_rule_runs_away(line):
    net, case = line()
    hot = FineTuneSchedule.exact(lr=0.3, momentum=0.0, epochs=60, batch_size=64)

    def size(cap):
        how = NegGradPlus(balance=0.6, early=1, run=hot, cap=cap)
        return run_method(net, case, GO, how).model.weight.abs().max().item()

    assert size(INF) > 1e3
    assert size(3.0) < 10


def test_only_early_steps_have_forget_rows(line):
    net, case = line()
    six = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=6, batch_size=64)
    done = run_method(net, case, GO, NegGradPlus(early=0.4, run=six))
    assert done.cost.backward == 6 * 16 + 3 * 4
