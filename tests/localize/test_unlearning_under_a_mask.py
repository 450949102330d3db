"""Any method under a mask: what the mask leaves out comes back bit by bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.methods.retrain import Retrain
from unlearnkit.testing import toy_case
from unlearnkit.train.frozen_weights import FrozenScalars, freeze_outside_mask
from unlearnkit.train.loop import descend

ASK = uk.Rows(*range(11))
METHODS = [
    i
    for i, m in uk.catalog.methods().items()
    if "classification" in m.info.tasks and not m.info.replaces
]


def moved(done, model):
    """Return where parameters differ in any bit, by name."""
    given = dict(model.named_parameters())
    return {n: p != given[n] for n, p in done.model.named_parameters()}


@pytest.mark.parametrize("granularity", ["parameter", "channel"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_moves_what_the_mask_names_and_nothing_else(toy, method, granularity):
    model, case = toy
    ask = uk.Classes(1)
    mask = Localizer(budget=0.4, granularity=granularity).find(model, case, ask)
    how = uk.method(method, **uk.catalog.methods()[method].info.smoke)
    done = uk.unlearn(model, case, ask, how, mask=mask)
    changed = moved(done, model)
    assert any(bool(m.any()) for m in changed.values())
    assert not any(bool((m & ~mask.chosen[n]).any()) for n, m in changed.items())
    assert done.mask is mask


@pytest.mark.parametrize(
    "recipe",
    [
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-2},
        {"optimizer": "adam", "lr": 0.05, "weight_decay": 5e-2},
        {"optimizer": "adamw", "lr": 0.05, "weight_decay": 5e-2},
    ],
)
def test_held_scalars_keep_every_bit_at_every_step(toy, recipe):
    model, case = toy
    mask = Localizer(granularity="parameter").find(model, case, ASK)
    net = case.fresh()
    net.load_state_dict(model.state_dict())
    rt = freeze_outside_mask(Runtime(), net, mask.chosen)
    retain = case.partition(ASK).retain
    seen = []

    def look(lr):
        del lr
        start = dict(model.named_parameters())
        ok = [
            torch.equal(p[~mask.chosen[n]], start[n][~mask.chosen[n]])
            for n, p in net.named_parameters()
        ]
        seen.append(all(ok))

    run = FineTuneSchedule.exact(epochs=5, batch_size=16, **recipe).recipe
    descend(
        net,
        retain,
        lambda b: case.task.losses(case.task.outputs(net, b), b),
        run,
        rt,
        stream="x",
        after_step=look,
    )
    assert len(seen) > 10
    assert all(seen)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_free_scalars_move_as_if_the_others_were_no_parameters(optimizer):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 3, generator=g).double(), torch.arange(12) % 2
    case = uk.Case(train=(x, y), task="classification")
    start = nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        start.weight.copy_(torch.randn(2, 3, generator=g))
    free = {"weight": torch.tensor([[1, 0, 1], [0, 0, 1]]).bool(), "bias": torch.zeros(2).bool()}
    net = nn.Linear(3, 2, dtype=torch.float64)
    net.load_state_dict(start.state_dict())
    how = {"optimizer": optimizer, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    recipe = FineTuneSchedule.exact(epochs=6, batch_size=12, **how).recipe
    view = case.partition(uk.Rows(0)).retain
    rt = freeze_outside_mask(Runtime(), net, free)
    descend(
        net,
        view,
        lambda b: case.task.losses(case.task.outputs(net, b), b),
        recipe,
        rt,
        stream="x",
        clip=0.05,
    )
    alone = start.weight.detach()[free["weight"]].clone().requires_grad_()
    opt = recipe.build([alone])
    for _ in range(6):
        w = start.weight.detach().clone()
        w[free["weight"]] = alone
        loss = nn.functional.cross_entropy(x[1:] @ w.T + start.bias.detach(), y[1:])
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([alone], 0.05)
        opt.step()
    torch.testing.assert_close(net.weight.detach()[free["weight"]], alone.detach())


def test_a_mask_of_everything_changes_nothing(toy):
    model, case = toy
    mask = Localizer(budget=1).find(model, case, ASK)
    one, other = (uk.unlearn(model, case, ASK, "relabel", mask=m).model for m in (mask, None))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_two_masks_hold_both(toy):
    model, case = toy
    net = case.fresh()
    net.load_state_dict(model.state_dict())
    free = {n: torch.rand(p.shape) < 0.5 for n, p in net.named_parameters()}
    other = {n: torch.rand(p.shape) < 0.5 for n, p in net.named_parameters()}
    rt = freeze_outside_mask(freeze_outside_mask(Runtime(), net, free), net, other)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    rt.restore()
    start = dict(model.named_parameters())
    for n, p in net.named_parameters():
        assert torch.equal(p != start[n], free[n] & other[n])


def test_tied_and_half_precision_weights_are_held():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(6, 6)
            self.down = nn.Linear(6, 6)
            self.down.weight = self.up.weight
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(torch.relu(self.down(torch.relu(self.up(x)))))

    case = toy_case(uk.Classification(3)).replace(fresh=Tied)
    model = uk.train_original(case).model.bfloat16()
    mask = Localizer(budget=0.5).find(model, case, ASK)
    done = uk.unlearn(model, case, ASK, "finetune", mask=mask)
    changed = moved(done, model)
    assert any(bool(m.any()) for m in changed.values())
    assert not any(bool((m & ~mask.chosen[n]).any()) for n, m in changed.items())


@pytest.mark.parametrize("declared", [True, False])
def test_a_method_that_returns_another_model_is_refused(toy, monkeypatch, declared):
    model, case = toy
    monkeypatch.setattr(Retrain, "info", replace(Retrain.info, replaces=declared))
    mask = Localizer(budget=0.4).find(model, case, ASK)
    with pytest.raises(UnsupportedError, match="retrain returns another model"):
        uk.unlearn(model, case, ASK, "retrain", mask=mask)


def test_a_mask_can_be_found_as_a_part_of_the_run_and_is_paid_for(toy):
    model, case = toy
    how = Localizer(budget=0.4, criterion="grad")
    rt = Runtime(seed=3)
    before = uk.unlearn(model, case, ASK, "finetune", rt, mask=how.find(model, case, ASK, rt))
    within = uk.unlearn(model, case, ASK, "finetune", rt, mask=how)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.model.parameters(), within.model.parameters(), strict=True)
    )
    assert within.mask.facts() == before.mask.facts()
    assert within.cost.backward - before.cost.backward == len(case.partition(ASK).forget)


def test_a_mask_found_within_the_run_is_of_the_given_model_in_its_own_precision(toy):
    model, case = toy
    half = copy.deepcopy(model).bfloat16()
    done = uk.unlearn(half, case, ASK, "finetune", mask=Localizer(budget=0.4))
    done.mask.check(half, case.partition(ASK).forget.key())


@pytest.mark.parametrize("method", ["salun", "del_localized"])
def test_a_method_with_a_mask_of_its_own_says_what_it_let_move(toy, method):
    model, case = toy
    how = uk.method(method, mask={"budget": 0.3})
    done = uk.unlearn(model, case, ASK, how)
    changed = moved(done, model)
    assert not any(bool((m & ~done.mask.chosen[n]).any()) for n, m in changed.items())
    assert any(not bool(m.all()) for m in done.mask.chosen.values())
    assert (done.mask.criterion, done.mask.budget) == (how.mask.criterion, 0.3)
    done.mask.check(model, case.partition(ASK).forget.key())
    assert uk.unlearn(model, case, ASK, "finetune").mask is None


def test_every_bit_is_held_of_every_number_and_wherever_it_lies():
    odd = torch.tensor([-0.0, 0.0, float("nan"), float("inf"), -1e-42, 3.0, 5.0])
    net = nn.Linear(7, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(odd)
    chosen = torch.tensor([[False] * 6 + [True]])
    hold = FrozenScalars(net, {"weight": chosen})
    start = net.weight.detach().clone().view(torch.int32)
    with torch.no_grad():
        net.weight.add_(1)
    hold.restore()
    assert torch.equal(net.weight.view(torch.int32)[~chosen], start[~chosen])
    assert net.weight[0, 6] == 6
    net.weight.data = torch.arange(7.0)[None]
    hold.restore()
    assert torch.equal(net.weight.view(torch.int32)[~chosen], start[~chosen])
    assert net.weight[0, 6] == 6
    net.weight.grad = torch.full((1, 7), float("nan"))
    net.weight.grad[0, 6] = 2
    hold.project()
    assert net.weight.grad[0].tolist() == [0, 0, 0, 0, 0, 0, 2]


def test_auto_takes_no_mask(toy):
    model, case = toy
    mask = Localizer(budget=0.4).find(model, case, ASK)
    with pytest.raises(UnsupportedError, match="name a method"):
        uk.unlearn(model, case, ASK, "auto", mask=mask)


def test_an_empty_mask_and_another_request_are_refused(toy):
    model, case = toy
    mask = Localizer(budget=0.4).find(model, case, ASK)
    empty = {**vars(mask), "chosen": {n: m & False for n, m in mask.chosen.items()}}
    with pytest.raises(InputError, match="selects no parameter"):
        uk.unlearn(model, case, ASK, "finetune", mask=Mask(**empty))
    with pytest.raises(InputError, match="other forget rows"):
        uk.unlearn(model, case, uk.Rows(1), "finetune", mask=mask)


def test_a_tensor_that_nobody_wrote_to_is_not_written_again():
    net = nn.Linear(2, 2)
    hold = FrozenScalars(net, {n: torch.zeros(p.shape).bool() for n, p in net.named_parameters()})
    before = net.weight._version
    hold.restore()
    assert net.weight._version == before
