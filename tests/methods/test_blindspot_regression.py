"""A model that never saw the forget rows says how to answer them, and is not changed by that."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import unlearnkit as uk
from unlearnkit.cases.diabetes import diabetes
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.blindspot_regression import BlindspotRegression, Seen
from unlearnkit.oracles import train_original

WHOLE = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
LIBRARY, REFERENCE = BlindspotRegression(), BlindspotRegression(maps="reference")


def numbers(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


class Looking(nn.Module):
    """Two convolutions with normalisation; notes which rows it is trained on, and its hooks."""

    def __init__(self, log=None):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 1)
        self.log = log

    def forward(self, x):
        if self.log is not None:
            hooks = sum(len(m._forward_hooks) for m in self.modules())
            self.log.append((self.training, x[:, 0, 0, 0].tolist(), hooks))
        return self.head(self.second(self.first(x)).mean((2, 3)))

    def __deepcopy__(self, memo):
        twin = Looking(self.log)
        twin.load_state_dict(self.state_dict())
        return twin.train(self.training)


def looking(log=None, built=None):
    """Return a case of 40 images, and a model of another start than the case's."""
    x = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = x.mean((1, 2, 3))

    def fresh():
        model = Looking(log)
        if built is not None:
            built.append(model)
        return model

    recipe = uk.Recipe(lr=0.05, epochs=10, batch_size=8)
    case = uk.Case(train=(x, y), task="regression", fresh=fresh, recipe=recipe)
    return train_original(case.replace(fresh=Looking)).model, case


def problem(model, case, forget, build=None):
    rows = View.all(case.train)
    mask = torch.isin(torch.arange(len(rows)), torch.tensor(forget))
    return Problem(
        model, model, case.task, rows.pick(mask), rows.pick(~mask), None, case.recipe, build=build
    )


# 1. the loss


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("how", [LIBRARY, REFERENCE], ids=["places", "reference"])
def test_the_loss_of_forget_rows_is_the_distance_to_answers_and_maps(loss, how):
    task = uk.Regression(2, loss=loss, scale=(3.0,))
    p = Problem(nn.Identity(), nn.Identity(), task, None, None, None, uk.Recipe())
    out, goal, y = numbers(5, 2), numbers(5, 2, seed=1), numbers(5, 2, seed=2).requires_grad_()
    ours, theirs = numbers(5, 4, 3, 3, seed=3), numbers(5, 4, 3, 3, seed=4)
    far = how.far(p, lambda _: Seen(goal, (how.looks(theirs),)), lambda _: (how.looks(ours),))
    got = far(out, Batch(torch.zeros(5, 1), y, torch.arange(5)))

    def rho(a, b):
        return ((a - b).abs() if loss == "l1" else (a - b) ** 2).mean(1)

    def look(a):
        v = (a**2).mean(1).flatten(1)
        return v / v.norm(dim=1, keepdim=True)

    gap = (look(ours) - look(theirs)) ** 2
    term = gap.mean(1) if how is REFERENCE else gap.sum(1) * task.never_seen
    torch.testing.assert_close(got, rho(out, goal) + how.attention * term, rtol=1e-12, atol=0)
    assert not got.requires_grad  # nothing of it comes from the targets


def test_a_step_is_that_of_retained_targets_and_blind_answers(line):
    net, case = line()
    built = []

    def fresh():
        built.append(case.fresh())
        return built[-1]

    how = BlindspotRegression(blind=WHOLE, early=1, run=WHOLE)
    forget = [0, 1, 2, 3]
    got = uk.unlearn(net, case.replace(fresh=fresh), uk.Rows(forget), how).model
    x, w, b = case.train.x, net.weight.detach(), built[-1].weight.detach()
    y = torch.cat([x[:4] @ b.T, case.train.y[4:]])
    want = w - 0.05 * 2 * (x @ w.T - y).T @ x / 16
    torch.testing.assert_close(got.weight.detach(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", [LIBRARY, REFERENCE], ids=["places", "reference"])
def test_a_student_equal_to_the_blind_model_stays_where_it_is(how):
    task = uk.Regression(loss="l1")
    p = Problem(nn.Identity(), nn.Identity(), task, None, None, None, uk.Recipe())
    out, act = numbers(5, 1).requires_grad_(), numbers(5, 4, 3, 3).requires_grad_()
    goal = Seen(out.detach(), (how.looks(act).detach(),))
    far = how.far(p, lambda _: goal, lambda _: (how.looks(act),))
    loss = far(out, Batch(torch.zeros(5, 1), out.detach(), torch.arange(5)))
    assert bool((loss == 0).all())
    for grad in torch.autograd.grad(loss.sum(), (out, act)):
        assert bool((grad == 0).all())


# 2. the blind model


def test_the_blind_model_never_trains_on_a_forget_row_and_is_not_changed_afterwards():
    log, held = [], []

    class Held(BlindspotRegression):
        def blind_model(self, p, rt):
            blind = super().blind_model(p, rt)
            held.append((blind, {k: v.clone() for k, v in blind.state_dict().items()}))
            return blind

    model, case = looking(log)
    forget = [0, 5, 11]
    uk.unlearn(model, case, uk.Rows(forget), Held())
    marks = set(case.train.x[forget][:, 0, 0, 0].tolist())
    trained = [set(rows) for training, rows, _ in log if training]
    asked = [set(rows) for training, rows, _ in log if not training]
    assert trained
    assert not any(marks & rows for rows in trained)
    assert marks in asked
    ((blind, state),) = held
    assert not blind.training
    assert all(torch.equal(v, state[k]) for k, v in blind.state_dict().items())


def test_exposure_is_counted_in_epochs_and_in_rows():
    model, case = looking()
    cost = {}
    for share, exposed in [(0.1, 1.0), (0.4, 1.0), (0.4, 0.5)]:
        rt = Runtime()
        how = BlindspotRegression(blind=FineTuneSchedule(share=share), exposed=exposed)
        how.blind_model(problem(model, case, range(8), Looking), rt)
        cost[share, exposed] = rt.cost.backward
    assert cost == {(0.1, 1.0): 32, (0.4, 1.0): 128, (0.4, 0.5): 64}


def test_both_trainings_are_on_the_meter_and_in_the_budget():
    model, case = looking()
    done = uk.unlearn(model, case, uk.Rows(range(8)), "blindspot_regression")
    assert 0.1 * 10 * 32 < done.cost.backward <= 0.25 * 10 * 32


def test_a_fresh_model_that_knows_the_rows_is_refused():
    model, case = looking()

    def again():
        twin = Looking()
        twin.load_state_dict(model.state_dict())
        return twin

    with pytest.raises(InputError, match=r"first.0.weight is as in the trained model"):
        uk.unlearn(model, case.replace(fresh=again), uk.Rows(0, 1), "blindspot_regression")


# 3. where layers look


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (3, 7, 4), (3, 6)], ids=str)
def test_maps_have_length_one_and_see_neither_scale_nor_sign_nor_order_of_channels(shape):
    a = numbers(*shape)
    look = LIBRARY.looks(a)
    torch.testing.assert_close(look.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(LIBRARY.looks(-2.5 * a), look)
    if len(shape) > 2:
        axis = 1 if len(shape) == 4 else 2
        torch.testing.assert_close(LIBRARY.looks(a.flip(axis)), look)
        assert look.shape == (3, {4: 25, 3: 7}[len(shape)])


def test_reference_maps_of_vectors_are_all_one_and_the_others_are_not():
    a, b = numbers(3, 6).requires_grad_(), numbers(3, 6, seed=1)
    term = REFERENCE.map_gap(REFERENCE.looks(a), REFERENCE.looks(b)).sum()
    (grad,) = torch.autograd.grad(term, a)
    assert term.item() == 0
    assert bool((grad == 0).all())
    ours = LIBRARY.map_gap(LIBRARY.looks(a), LIBRARY.looks(b))
    assert bool((ours > 1e-3).all())
    image = numbers(3, 4, 2, 2)
    torch.testing.assert_close(REFERENCE.looks(image), LIBRARY.looks(image))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_activations_give_a_finite_term_and_gradient(value):
    a = torch.full((2, 3, 4, 4), value, dtype=torch.float64, requires_grad=True)
    term = LIBRARY.map_gap(LIBRARY.looks(a), LIBRARY.looks(numbers(2, 3, 4, 4))).sum()
    (grad,) = torch.autograd.grad(term, a)
    assert bool(grad.isfinite().all())
    assert bool((grad == 0).all()) == (value == 0)


def test_layers_are_found_at_the_ends_of_stages_and_units_of_vectors_are_left_out(line):
    model, case = looking()
    p, rt = problem(model, case, [0, 1]), Runtime()
    assert BlindspotRegression().compared_layers(p, rt) == ("first", "second")
    assert not rt.notes
    net, flat = line()
    assert BlindspotRegression().compared_layers(problem(net, flat, [0, 1]), rt) == ()
    assert "no layer has places to compare" in rt.notes[-1]


def test_a_named_layer_with_one_place_is_left_out_and_told():
    model, case = looking()
    p, rt = problem(model, case, [0, 1]), Runtime()
    assert BlindspotRegression(layers=("second", "head")).compared_layers(p, rt) == ("second",)
    assert rt.notes == ["blindspot_regression: layer head has one place; it is left out"]


def test_layers_that_do_not_exist_are_refused():
    model, case = looking()
    how = BlindspotRegression(layers=("secnd",))
    with pytest.raises(InputError, match=r"no layer 'secnd'\. Did you mean 'second'\?"):
        uk.unlearn(model, case, uk.Rows(0, 1), how)


def test_without_attention_no_layer_is_read_and_with_it_none_stays_hooked():
    for attention, read in ((0.0, False), (1.0, True)):
        log = []
        model, case = looking(log)
        model.log = log
        done = uk.unlearn(model, case, uk.Rows(0, 1), BlindspotRegression(attention=attention))
        assert any(hooks for _, _, hooks in log) == read
        assert not any(m._forward_hooks for m in done.model.modules())


def test_attention_moves_the_student_towards_where_the_blind_model_looks():
    results = []
    for attention in (0.0, 20.0):
        built = []
        model, case = looking(built=built)
        how = BlindspotRegression(attention=attention, early=1, run={"share": 1})
        done = uk.unlearn(model, case, uk.Rows(range(8)), how)
        x = case.train.x[:8]
        looks = [
            functional.normalize(m.eval().second(m.first(x)).square().mean(1).flatten(1), dim=1)
            for m in (done.model, built[-1])
        ]
        results.append((looks[0] - looks[1]).square().sum().item())
    assert results[1] < 0.7 * results[0]


def test_the_blind_model_is_asked_once_a_row_unless_inputs_change():
    model, case = looking()
    extra = []
    for augment in ("none", "flip_crop"):
        recipe = case.recipe.model_copy(update={"augment": augment})
        how = BlindspotRegression(early=1, run={"share": 1}, batch_norm="keep")
        done = uk.unlearn(model, case.replace(recipe=recipe), uk.Rows(range(8)), how)
        extra.append(done.cost.forward - done.cost.backward)
    assert extra[0] == 8 + 4  # all forget rows, and two rows twice to find the layers with
    assert extra[1] > extra[0]


# 4. bad input


def test_targets_without_spread_end_in_a_finite_model():
    model, case = looking()
    flat = case.replace(
        train=TensorData(case.train.x, torch.full((40, 1), 2.0)),
        task=uk.Regression(centre=(2.0,), scale=(0.0,)),
    )
    done = uk.unlearn(model, flat, uk.Rows(0, 1), "blindspot_regression")
    assert all(bool(t.isfinite().all()) for t in done.model.state_dict().values())


def test_a_classifier_is_refused():
    case = uk.Case(train=(torch.randn(8, 2), torch.arange(8) % 2), task="classification")
    with pytest.raises(uk.UnlearnkitError, match="serves regression, not classification"):
        uk.unlearn(nn.Linear(2, 2), case, uk.Rows(0), "blindspot_regression")


# 5. real rows


@pytest.mark.slow
@pytest.mark.exhaustive
def test_on_digits_as_numbers_it_answers_like_the_blind_model_and_finetuning_does_not():
    bunch = load_digits()
    x = torch.tensor(bunch.data / 16).float().reshape(-1, 1, 8, 8)
    y = torch.tensor(bunch.target).float()
    test, train = torch.arange(len(y)) % 4 == 0, torch.arange(len(y)) % 4 != 0

    def block(a, b, stride):
        return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())

    def fresh():
        body = block(1, 32, 1), block(32, 64, 1), block(64, 64, 2)
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))

    task = uk.Regression.infer(TensorData(x[train], y[train]), loss="l1")
    recipe = uk.Recipe(optimizer="adam", lr=1e-2, epochs=8, batch_size=64)
    case = uk.Case(train=(x[train], y[train]), task=task, fresh=fresh, recipe=recipe)
    model = train_original(case).model
    low = y[test] <= 2

    def errors(net):
        error = (net.eval()(x[test]).detach()[:, 0] - y[test]).abs()
        return error[~low].mean().item(), error[low].mean().item()

    run = FineTuneSchedule.exact(optimizer="adam", lr=1e-3, epochs=5, batch_size=64)
    how = BlindspotRegression(
        blind=FineTuneSchedule.exact(optimizer="adam", lr=1e-2, epochs=2, batch_size=64),
        attention=50.0,
        maps="reference",
        early=1,
        run=run,
    )
    forget = (y[train] <= 2).nonzero()[:, 0]
    blind = how.blind_model(problem(model, case, forget.tolist(), fresh), Runtime())
    published = errors(uk.unlearn(model, case, uk.Rows(forget), how).model)
    finetuned = errors(
        uk.unlearn(model, case, uk.Rows(forget), uk.method("finetune", "paper", run=run)).model
    )
    assert published[0] <= 0.75
    assert published[1] == pytest.approx(errors(blind)[1], rel=0.4)
    assert finetuned[1] < 1
    assert published[1] > 2


@pytest.mark.parametrize("request_", ["group=2", "target<-0.9"])
def test_on_diabetes_the_default_comes_nearer_to_retraining_for_a_fifth_of_its_cost(request_):
    case = diabetes()
    model = train_original(case).model
    retrained = uk.oracle(case, request_, seeds=2)
    done = uk.unlearn(model, case, request_, "blindspot_regression")
    parts = case.partition(done.request)

    def error(net, rows):
        return (net.eval()(case.train.x[rows].float()) - case.train.y[rows]).abs().mean().item()

    def gap(net, rows):
        return abs(error(net, rows) - sum(error(m, rows) for m in retrained.models) / 2)

    go, stay = parts.forget.rows, parts.retain.rows
    assert done.cost.backward <= 0.25 * case.recipe.epochs * len(stay)
    assert gap(done.model, go) < 0.9 * gap(model, go)
    assert gap(done.model, stay) < 0.1
