"""What can be asked of the small CIFAR-10 case, on the real images."""

import os
from pathlib import Path

import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import hard_forget_sets as hard
from unlearnkit.cases.registry import ModelSelectedRequest

REAL = os.environ.get("UNLEARNKIT_DATA")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not REAL or not (Path(REAL) / "cifar10").is_dir(), reason="no cifar10 in UNLEARNKIT_DATA"
    ),
]
SHARES = {
    "class": 0.1,
    "classes": 0.3,
    "sub_class": 0.1,
    "random_tenth": 0.1,
    "random_twentieth": 0.05,
    "random_hundredth": 0.01,
    "non_iid": 0.1,
    "mislabelled_tenth": 0.1,
    "poisoned": 0.01,
    "half_poisoned": 0.005,
    "swapped": 0.08,
    "half_swapped": 0.04,
}


def asked(name):
    return uk.catalog.cases()["cifar10_small"].ask(name)


def test_every_request_is_known_here():
    found = uk.catalog.cases()["cifar10_small"].requests
    pointed = {name for name, one in found.items() if isinstance(one, ModelSelectedRequest)}
    assert set(found) == {*SHARES, *pointed}
    assert {"memorised_tenth", "memorized_tenth_leave_out", "hardest_tenth"} <= pointed


def photographs():
    """Return the first 200 photographs with the network and a short form of the recipe."""
    case = uk.catalog.cases()["cifar10_small"].make()
    recipe = case.recipe.model_copy(update={"epochs": 2})
    few = case.train.pick(torch.arange(200)), case.test.pick(torch.arange(60))
    return case.replace(train=few[0], test=few[1], recipe=recipe, name="photographs")


def test_requests_that_models_point_out_run_on_photographs(monkeypatch):
    monkeypatch.setattr(hard, "LEAVE_OUT_MODELS", 24)
    for name, one in hard.requests(photographs).items():
        made = one()
        assert len(made.case.partition(made.request).forget) == 20, name


@pytest.mark.parametrize("name", SHARES)
def test_a_request_forgets_this_share_of_the_rows(name):
    case, request = asked(name).case, asked(name).request
    share = len(case.partition(request).forget) / len(case.train)
    assert share == pytest.approx(SHARES[name], rel=0.05)


def test_forgotten_labels_are_wrong_and_kept_ones_right():
    plain, planted = asked("class").case, asked("mislabelled_tenth")
    wrong = (planted.case.train.y != plain.train.y).nonzero()[:, 0]
    assert wrong.tolist() == list(planted.request.rows)


def test_cats_go_from_the_animals():
    case = asked("sub_class").case
    animals = {2, 3, 4, 5, 6, 7}
    assert set(case.train.group[case.train.y == 1].tolist()) == animals
    assert set(case.train.group[case.train.y == 0].tolist()) == set(range(10)) - animals
    assert case.held_out.group.unique().tolist() == [3]
    with torch.inference_mode():
        assert case.fresh().eval()(case.test.x[:2]).shape == (2, 2)


def test_the_part_that_is_not_iid_is_half_of_the_birds_and_dogs():
    case, request = asked("non_iid").case, asked("non_iid").request
    counts = case.partition(request).forget.y.bincount(minlength=10)
    assert set(counts.nonzero()[:, 0].tolist()) == {2, 5}
    assert counts[2] + counts[5] == 1000


def test_the_trigger_is_a_bright_square_in_the_corner_of_the_poisoned_photographs():
    plain, planted = asked("class").case.train, asked("poisoned")
    rows, x = list(planted.request.rows), planted.case.train.x
    moved = (x != plain.x).any(1).nonzero()
    assert set(moved[:, 0].tolist()) == set(rows)
    assert int(moved[:, 1:].min()) == 29
    assert x[rows][:, :, 29:, 29:].eq(plain.x.max()).all()
