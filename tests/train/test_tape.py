import pytest
import torch
from torch import nn
from torch.nn import functional

from unlearnkit.train.vectorized.step_recorder import StepRecorder

RNG = torch.Generator().manual_seed(5)


def numbers(*shape):
    return torch.randn(shape, generator=RNG, dtype=torch.float64)


class Linear:
    """A product, its gradients, and views of a weight."""

    def __init__(self):
        self.kept = [numbers(4, 3).requires_grad_(), numbers(4).requires_grad_()]

    def __call__(self, x):
        w, b = self.kept
        out = (x @ w.mT.detach() @ w[:, :2].relu() + b[:2]).square().sum(1)
        return [out.detach(), *torch.autograd.grad(out.sum(), self.kept)]


class Norm:
    """Buffers that follow the rows."""

    def __init__(self):
        self.layer = nn.BatchNorm1d(3).double()
        self.kept = [self.layer.running_mean, self.layer.running_var]

    def __call__(self, x):
        return [self.layer(x).detach()]


class Edits:
    """Edits in place: what came in as a copy, what was made, a view, and what stays."""

    def __init__(self):
        self.kept = [numbers(3)]

    def __call__(self, x):
        made = x.clone()
        made.view(-1)[:2].mul_(3)
        self.kept[0].view(3, 1)[:, 0].add_(made.sum(0))
        flat = made.detach()
        flat.add_(1)
        return [made + self.kept[0]]


class Lists:
    """Operations on lists, that return lists, and on inputs of another layout."""

    def __init__(self):
        self.kept = [numbers(5, 1)]

    def __call__(self, x):
        left, middle, right = x.mT.contiguous().mT.split(1, dim=1)
        both = torch.cat([left, self.kept[0], right], 1) + torch.stack([middle] * 3, 1)[..., 0]
        return [both, None, both[torch.tensor([0, 2])]]


class Pool:
    """An operation that edits the shape of what it made."""

    kept = ()

    def __call__(self, x):
        image = x[None, :, None, :].contiguous(memory_format=torch.channels_last)
        return [functional.adaptive_avg_pool2d(image, 1)]


@pytest.mark.parametrize("kind", [Linear, Norm, Edits, Lists, Pool], ids=lambda k: k.__name__)
def test_a_tape_does_again_what_was_done_on_other_inputs_and_other_weights(kind):
    step = kind()
    first, second = numbers(5, 3), numbers(5, 3)
    with StepRecorder([first]) as tape:
        made = step(first)
    tape.end(made)
    start = []
    with torch.no_grad():
        for t in step.kept:
            t.add_(numbers(*t.shape).abs())
            start.append(t.clone())
        played = tape.play([second])
        moved = [t.clone() for t in step.kept]
        for t, was in zip(step.kept, start, strict=True):
            t.copy_(was)
    wanted = step(second)
    for mine, theirs in zip([*played, *moved], [*wanted, *step.kept], strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)


def test_a_tape_does_only_what_its_results_need():
    x = numbers(5, 3)
    with StepRecorder([x]) as tape:
        (x @ x.mT).exp()
        out = x + 1
    tape.end([out])
    assert [str(op.func) for op, _ in tape._played] == ["aten.add.Tensor"]


def turned(x):
    same = x.detach()
    return same.unsqueeze_(0)


@pytest.mark.parametrize(
    "step",
    [lambda x: x * x.sum().item(), torch.rand_like, lambda x: x[x > 0], turned],
    ids=["a value", "a draw", "a choice by value", "another shape for what came in"],
)
def test_what_cannot_be_played_is_refused(step):
    x = numbers(5, 3)
    with pytest.raises(RuntimeError, match="cannot be played again"), StepRecorder([x]):
        step(x)


@pytest.mark.parametrize(("factor", "same"), [(2.0, True), (3.0, False)])
def test_tapes_are_the_same_where_their_operations_are(factor, same):
    x, tapes = numbers(5, 3), []
    for k in (2.0, factor):
        with StepRecorder([x]) as tape:
            out = x * k
        tape.end([out])
        tapes.append(tape)
    assert tapes[0].same(tapes[1]) is same
