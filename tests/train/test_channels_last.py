"""Convolutional networks run channels last on a CPU where they bear it, and nobody sees it."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.networks import small_conv
from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.train.memory_format import get_strides, quick, to_channels_last_if_faster

TASK = uk.Classification(3)


class Viewing(nn.Module):
    """Takes the activations of its convolution apart by ``view``, as much code does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).view(len(x), -1))


class Wrong(Viewing):
    """Reads activations as they lie in memory, so that another layout is another answer."""

    def forward(self, x):
        out = torch.relu(self.conv(x))
        return self.head(torch.as_strided(out, (len(x), 256), (256, 1)))


def noise(count, seed, size=8):
    y = torch.arange(count) % 3
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return x + y.view(-1, 1, 1, 1), y


def case(fresh):
    return uk.Case(
        train=noise(24, 0),
        test=noise(12, 1),
        validation=noise(12, 2),
        task=TASK,
        fresh=fresh,
        recipe=uk.Recipe(lr=0.05, epochs=2, batch_size=8),
    )


def batch(cost=None):
    x, y = noise(4, 3)
    return Batch(x, y, torch.arange(4), cost)


def lies_last(model):
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def conv():
    return small_conv(3)


def test_a_convolutional_network_gets_a_copy_that_lies_channels_last_and_answers_alike():
    model, few = conv().eval(), batch()
    twin = to_channels_last_if_faster(model, few, TASK, Runtime())
    assert lies_last(twin)
    assert not lies_last(model)
    assert all(torch.equal(t, twin.state_dict()[n]) for n, t in model.state_dict().items())
    torch.testing.assert_close(twin(few.x), model(few.x))


@pytest.mark.parametrize("kind", [Viewing, Wrong])
def test_a_network_that_reads_memory_as_it_lies_stays_as_it_is(kind):
    model = kind()
    assert to_channels_last_if_faster(model, batch(), TASK, Runtime()) is model
    assert not lies_last(model)


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (lambda: conv().to(memory_format=torch.channels_last), "fp32"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "fp32"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)), "fp32"),
        (conv, "bf16"),
    ],
    ids=["laid out by its owner", "no convolution", "one channel", "bf16"],
)
def test_where_nothing_is_gained_the_model_itself_runs(make, precision):
    model, few = make(), batch()
    if isinstance(model, nn.Sequential) and getattr(model[0], "in_channels", 3) == 1:
        few = Batch(few.x[:, :1], few.y, few.row)
    assert to_channels_last_if_faster(model, few, TASK, Runtime(precision=precision)) is model


def test_a_run_may_leave_every_network_as_it_was_built():
    rt = Runtime(channels_last="off")
    for same in (rt, rt.fork(3), rt.fork(3, quiet=True)):
        model = conv()
        assert to_channels_last_if_faster(model, batch(), TASK, same) is model
        with quick(model, batch(), TASK, same):
            assert not lies_last(model)


def test_to_try_a_layout_costs_no_rows_and_no_random_numbers_and_moves_no_statistics():
    model, cost = conv().train(), Cost()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    twin = to_channels_last_if_faster(model, batch(cost), TASK, Runtime())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert (cost.forward, cost.pending) == (0, 0)
    assert model.training
    assert twin.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_within_the_context_a_model_lies_channels_last_and_then_as_it_did():
    model = conv()
    given = get_strides(model)
    with quick(model, batch(), TASK, Runtime()):
        assert lies_last(model)
    assert get_strides(model) == given


class Looks(Method):
    """Notes how the models that a method is given lie in memory, and leaves them in disorder."""

    id = "looks"
    info = Info(
        title="x",
        cite="x",
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification"}),
    )

    def apply(self, p, rt):
        rt.note(str([lies_last(m) for m in (p.model, p.original, p.fresh())]))
        for t in p.model.parameters():
            t.data = (0.9 * t.data).transpose(0, -1).contiguous().transpose(0, -1)
        return p.model


@pytest.mark.parametrize(("fresh", "last"), [(conv, True), (Viewing, False)])
def test_a_method_gets_models_that_lie_alike_and_the_caller_gets_them_as_his_lie(fresh, last):
    problem = case(fresh)
    trained = uk.train_original(problem)
    given = get_strides(trained.model)
    assert given == get_strides(fresh())
    done = uk.unlearn(trained.model, problem, uk.Rows(0, 1), Looks())
    assert str([last] * 3) in done.notes
    assert (
        get_strides(done.model) == get_strides(done.original) == get_strides(trained.model) == given
    )
    assert uk.audit(done).row("accuracy_forget").estimate.examples == 2
    assert get_strides(done.model) == given


class Listening(nn.Sequential):
    """Notes at each call how it lies in memory, and whether it is training."""

    seen: ClassVar[list[tuple[bool, bool]]] = []

    def forward(self, x):
        self.seen.append((self.training, lies_last(self)))
        return super().forward(x)


def test_training_and_localizers_run_channels_last():
    problem = case(lambda: Listening(*conv()))
    Listening.seen.clear()
    model = uk.train_original(problem).model
    assert {last for training, last in Listening.seen if training} == {True}
    Listening.seen.clear()
    Localizer(criterion="weighted_grad", budget=0.3).find(model, problem, uk.Rows(*range(6)))
    assert Listening.seen[-1][1]
    assert not lies_last(model)


def test_a_mask_is_the_same_in_every_bit_found_beforehand_and_within_a_run():
    problem, request = case(conv), uk.Rows(*range(6))
    model = uk.train_original(problem).model
    localizer = Localizer(criterion="weighted_grad", budget=0.3)
    found = localizer.find(model, problem, request)
    done = uk.unlearn(model, problem, request, "finetune", mask=localizer)
    assert done.mask.digest() == found.digest()
