import pytest
import torch

from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Rows
from unlearnkit.methods.finetune import FineTune
from unlearnkit.methods.l1_sparse import L1Sparse
from unlearnkit.unlearning.run_method import run_method

GO = Rows(0, 1, 2, 3)
STEP = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
TWO = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=2, batch_size=64)


def gradient(case, w):
    x, y = case.train.x[4:], case.train.y[4:]
    return (2 * (x @ w.T - y) * x).mean(0)


def test_the_penalty_adds_the_sign_of_each_weight_and_fades_by_the_epoch(line):
    net, case = line()
    got = run_method(
        net, case, GO, L1Sparse(penalty=0.4, step="subgradient", run=TWO)
    ).model.weight.detach()
    w = net.weight.detach()
    for gamma in (0.4, 0.2):
        w = w - 0.05 * (gradient(case, w) + gamma * w.sign())
    torch.testing.assert_close(got, w, rtol=1e-7, atol=1e-9)  # the penalty is summed in float32


@pytest.mark.parametrize(("run", "pushes"), [(TWO, [0.75, 0.25]), (STEP, [1.0])], ids=["2", "1"])
def test_the_proximal_steps_are_soft_thresholds_that_add_up_to_the_penalty(line, run, pushes):
    net, case = line()
    how = L1Sparse(penalty=0.7, step="proximal", covers="weights", run=run)
    got = run_method(net, case, GO, how).model.weight.detach()
    w = net.weight.detach()
    mean = w.abs().mean()
    for push in pushes:
        w = w - 0.05 * gradient(case, w)
        w = torch.where(w.abs() > 0.7 * mean * push, w - 0.7 * mean * push * w.sign(), 0.0)
    assert bool((w == 0).any())
    torch.testing.assert_close(got, w, rtol=1e-12, atol=1e-12)


def test_a_large_proximal_penalty_gives_exact_zeros(toy):
    model, case = toy
    got = run_method(model, case, GO, L1Sparse(penalty=1e4, covers="all", run=STEP)).model
    assert all(bool((w == 0).all()) for w in got.parameters())


@pytest.mark.parametrize(
    ("step", "penalties"), [("subgradient", [0.0, 0.01, 0.1, 0.3]), ("proximal", [0, 0.5, 1.5, 4])]
)
def test_a_larger_penalty_leaves_a_smaller_norm(toy, step, penalties):
    model, case = toy
    run = FineTuneSchedule(share=0.3)

    def norm(penalty):
        got = run_method(model, case, GO, L1Sparse(penalty=penalty, step=step, run=run)).model
        return sum(w.detach().abs().sum().item() for w in got.parameters())

    sizes = [norm(g) for g in penalties]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.9 * sizes[0]


def test_the_last_epoch_has_one_share_of_the_penalty():
    how = L1Sparse(penalty=1.0)
    assert how.penalty_at(0, 10) == 1.0
    assert how.penalty_at(9, 10) == pytest.approx(0.1)


def test_epochs_at_rest_have_no_penalty():
    how = L1Sparse(penalty=1.0, rest=0.4)
    want = [1 - e / 6 for e in range(6)] + [0.0] * 4
    assert [how.penalty_at(e, 10) for e in range(10)] == pytest.approx(want)


def test_biases_can_be_left_out(clouds):
    net, case = clouds()
    plain = run_method(net, case, GO, FineTune(run=STEP)).model
    bare = run_method(net, case, GO, L1Sparse(penalty=1.0, covers="weights", run=STEP)).model
    full = run_method(net, case, GO, L1Sparse(penalty=1.0, covers="all", run=STEP)).model
    assert torch.equal(bare.bias, plain.bias)
    assert not torch.equal(bare.weight, plain.weight)
    assert not torch.equal(full.bias, plain.bias)
