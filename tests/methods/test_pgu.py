import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.methods.pgu import entropy, reverse_cross_entropy
from unlearnkit.oracles import train_original

# spec section 9, check 5


def test_the_loss_is_the_naive_one_and_stays_finite():
    logits = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    y = torch.arange(50) % 6
    p = logits.softmax(1)[torch.arange(50), y]
    for epsilon in (0.05, 0.5, 0.0):
        naive = -(1 - p + epsilon).log()
        assert torch.allclose(reverse_cross_entropy(logits, y, epsilon), naive, atol=1e-6)
    extreme = torch.tensor([[1000.0, 0, 0]], requires_grad=True)
    loss = reverse_cross_entropy(extreme, torch.tensor([0]), 0.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1000 - math.log(2))
    assert extreme.grad[0].tolist() == pytest.approx([1, -0.5, -0.5])


def test_the_entropy_is_that_of_the_softmax_and_classes_can_be_left_out():
    assert entropy(torch.zeros(1, 4)).item() == pytest.approx(math.log(4))
    left_out = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    value = entropy(left_out)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(2))
    assert torch.isfinite(left_out.grad[0, [0, 2]]).all()


# checks 7 and 8


def digits(seed):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x / 16, y, test_size=0.3, random_state=seed, stratify=y)
    x, x_test, y, y_test = (torch.tensor(p) for p in parts)
    half = len(y_test) // 2

    def fresh():
        return nn.Sequential(
            *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
        )

    return uk.Case(
        train=(x.float(), y),
        test=(x_test[:half].float(), y_test[:half]),
        validation=(x_test[half:].float(), y_test[half:]),
        task="classification",
        fresh=fresh,
        recipe=Recipe(optimizer="adam", lr=1e-3, epochs=100),
    )


def accuracy(model, x, y):
    with torch.no_grad():
        return (model.eval()(x).argmax(1) == y).double().mean().item()


SEEDS = [0, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in (1, 2))]


@pytest.fixture(scope="module", params=SEEDS)
def trained(request):
    case = digits(request.param)
    return case, train_original(case, seed=request.param).model


def forget_and_retain(case, model):
    x = torch.cat([case.test.x, case.validation.x])
    y = torch.cat([case.test.y, case.validation.y])
    return accuracy(model, x[y == 3], y[y == 3]), accuracy(model, x[y != 3], y[y != 3])


def test_a_class_of_digits_is_forgotten_and_the_rest_kept(trained):
    case, model = trained
    stay = case.train.y != 3
    _, before = forget_and_retain(case, model)
    runs = {
        "energy": {"epochs": 100, "start_rate": 0.05, "fall": 0.2},
        "too_much_held": {
            "held": {"rule": "singular", "threshold": 0.95},
            **{"epochs": 100, "start_rate": 0.05, "fall": 0.2},
        },
        "default": {},
    }
    for name, settings in runs.items():
        stop = {} if name == "default" else {"stop": "never"}
        out = uk.unlearn(model, case, uk.Classes(3), uk.method("pgu", **settings, **stop))
        forget, retain = forget_and_retain(case, out.model)
        if name == "too_much_held":
            assert forget >= 0.95
            continue
        assert forget <= 0.1
        assert accuracy(out.model, case.train.x[stay], case.train.y[stay]) >= 0.99
        assert abs(retain - before) <= 0.015
        if name == "default":
            assert out.cost.work <= 0.1 * 3 * case.recipe.epochs * int(stay.sum())


def test_rows_at_random_are_unlearned_until_they_look_like_validation_rows(trained):
    case, model = trained
    gone = range(0, 1250, 10)
    how = uk.method("pgu", epochs=100, start_rate=0.5, fall=0.2, stop="validation_gap")
    out = uk.unlearn(model, case, uk.Rows(*gone), how)
    forget = accuracy(out.model, case.train.x[list(gone)], case.train.y[list(gone)])
    assert forget < 1
    assert abs(forget - accuracy(out.model, case.validation.x, case.validation.y)) <= 0.03


def test_kept_moments_stand_in_for_the_retained_rows(trained):
    case, model = trained
    moments = uk.InputMoments.of_case(model, case)
    whole = uk.unlearn(model, case, uk.Classes(3), uk.method("pgu", stop="never"))
    go = case.train.y == 3
    bare = uk.Case.from_parts(
        forget=(case.train.x[go], case.train.y[go]),
        validation=(case.validation.x, case.validation.y),
        task=case.task,
        recipe=case.recipe,
        input_moments=moments,
    )
    out = uk.unlearn(model, bare, None, uk.method("pgu", stop="never"))
    for a, b in zip(out.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)
    other = bare.replace(input_moments=None)
    with pytest.raises(UnsupportedError, match="input moments or retain"):
        uk.unlearn(model, other, None, "pgu")
    with pytest.raises(InputError, match="other weights"):
        uk.unlearn(case.fresh(), bare, None, "pgu")


def test_a_held_whole_model_says_that_nothing_moves(trained):
    case, model = trained
    out = uk.unlearn(model, case, uk.Classes(3), uk.method("pgu", held={"threshold": 1.0}))
    assert any("nothing moves" in note for note in out.notes)
    assert all(
        torch.equal(a, b) for a, b in zip(out.model.parameters(), model.parameters(), strict=True)
    )


# ten requests: the artefact is updated


@pytest.fixture(scope="module")
def keyed():
    case = digits(0)
    case = case.replace(recipe=Recipe(lr=0.1, momentum=0.9, epochs=8))
    case = uk.Case(
        train=(case.train.x, case.train.y),
        validation=(case.validation.x, case.validation.y),
        keys=range(len(case.train)),
        task=case.task,
        fresh=case.fresh,
        recipe=case.recipe,
    )
    return case, train_original(case, seed=0).model


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_moments_after_requests_are_updated_by_subtraction_and_reading_forget_rows_alone(keyed):
    case, model = keyed
    case = case.replace(input_moments=uk.InputMoments.of_case(model, case))
    for request in (uk.Rows(range(20)), uk.Rows(range(30, 50))):
        done = uk.unlearn(model, case, request, uk.method("pgu", stop="never", epochs=5))
        model, case = done.model, done.case_after_deletion()
        assert not any("negative" in note for note in done.notes)
    kept, fresh = case.input_moments, uk.InputMoments.of_case(model, case)
    assert kept.rows == fresh.rows == len(case.train)
    assert kept.model == fresh.model
    first, *later = kept.products
    dense = case.train.x.double().mT @ case.train.x.double()
    assert torch.allclose(kept.products[first][0], dense, rtol=1e-5, atol=1e-6 * dense.max())
    assert all(relative(kept.products[n], fresh.products[n]) < 0.05 for n in later)
    uk.unlearn(model, case, uk.Rows(25), uk.method("pgu", stop="never", epochs=1))


def test_moments_of_the_model_before_are_not_kept_by_a_deletion_alone(keyed):
    case, model = keyed
    whole = case.replace(input_moments=uk.InputMoments.of_case(model, case))
    assert whole.after_deletion("rows=1").input_moments is None
    assert len(whole.after_deletion("rows=1").train) == len(case.train) - 1


def test_a_case_of_parts_gives_the_moments_for_the_next_one(keyed):
    case, model = keyed
    moments = uk.InputMoments.of_case(model, case)
    x, y = case.train.x, case.train.y

    def bare(rows, kept):
        return uk.Case.from_parts(
            forget=(x[rows], y[rows]), task=case.task, recipe=case.recipe, input_moments=kept
        )

    how = uk.method("pgu", stop="never", epochs=2)
    done = uk.unlearn(model, bare([0, 1], moments), None, how)
    with pytest.raises(UnsupportedError, match="made from parts"):
        done.case_after_deletion()
    left = done.input_moments_after_deletion()
    assert left.rows == moments.rows - 2
    uk.unlearn(done.model, bare([2, 3], left), None, how)
    with pytest.raises(InputError, match="other weights"):
        uk.unlearn(done.model, bare([2, 3], moments), None, how)
    whole = replace(done, case=done.case.replace(input_moments=left))
    with pytest.raises(InputError, match="other weights"):
        whole.input_moments_after_deletion()


# bad input


def test_a_run_that_its_guard_takes_back_whole_is_told(toy):
    model, case = toy
    how = uk.method("pgu", epochs=4, start_rate=50.0, guard={"floor": 0.0})
    done = uk.unlearn(model, case, uk.Classes(1), how)
    want = model.state_dict()
    assert all(torch.equal(t, want[name]) for name, t in done.model.state_dict().items())
    assert any("pgu: did nothing: after pass 1 what stays is harmed" in n for n in done.notes)


def test_a_subspace_without_a_direction_is_told(toy):
    model, case = toy
    how = uk.method("pgu", held={"threshold": 1e-6}, stop="never", epochs=1)
    notes = uk.unlearn(model, case, uk.Classes(1), how).notes
    assert any("no direction of any layer is held" in note for note in notes)
    free = uk.method("pgu", held={"threshold": 0}, stop="never", epochs=1)
    assert not any("is held" in n for n in uk.unlearn(model, case, uk.Classes(1), free).notes)


@pytest.mark.parametrize("method", ["jit", "pgu", "duck"])
def test_all_classes_cannot_be_forgotten(toy, method):
    model, case = toy
    with pytest.raises(InputError, match="names all rows"):
        uk.unlearn(model, case, uk.Classes(0, 1, 2), method)


@pytest.mark.parametrize("method", ["jit", "pgu", "duck"])
def test_rows_that_are_already_deleted_cannot_be_forgotten(keyed, method):
    case, model = keyed
    after = case.after_deletion(uk.Rows(3, 4))
    with pytest.raises(InputError, match="1 of 2 are already deleted"):
        uk.unlearn(model, after, uk.Rows(4, 5), method)
