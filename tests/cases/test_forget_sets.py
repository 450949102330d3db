"""Forget sets for any case: drawn from a seed, ranked by a score, refused where they make no sense.

What was tampered with is looked up in the pixels and labels themselves.
"""

import numpy as np
import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.cases.digits_tampered import digits_backdoor, digits_swapped
from unlearnkit.cases.forget_sets import mislabelled, part_of_classes, random_share, rows_by_rank
from unlearnkit.cases.hard_forget_sets import entangled, memorised, worst
from unlearnkit.cases.tampered_sets import backdoor, known_part, swap_labels
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Rows
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

CASE = toy_case(Classification(3))


def rows(asked):
    return list(asked.request.rows)


DRAWS = {
    "uniform": lambda seed: random_share(CASE, 0.2, seed=seed),
    "stratified": lambda seed: random_share(CASE, 0.2, seed=seed, stratified=True),
    "part of classes": lambda seed: part_of_classes(CASE, (0, 2), 0.2, seed=seed),
    "mislabelled": lambda seed: mislabelled(CASE, 0.2, seed=seed),
    "backdoor": lambda seed: known_part(backdoor(CASE, 12, (2, 3), seed=seed)),
    "swapped": lambda seed: known_part(swap_labels(CASE, 0, 1, 0.3, seed=seed)),
    "half known": lambda seed: known_part(digits_swapped(), 0.5, seed=seed),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_set_is_the_same_for_a_seed_and_another_for_another(name):
    draw = DRAWS[name]
    torch.manual_seed(5)
    assert rows(draw(0)) == rows(draw(0))
    assert draw(0).case.train.key() == draw(0).case.train.key()
    assert rows(draw(0)) != rows(draw(1))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.37])
def test_a_share_is_rounded_down_and_strata_are_within_a_row_of_their_part(share):
    case, wanted = digits(), int(1437 * share)
    assert len(rows(random_share(case, share))) == wanted
    taken = case.train.y[rows(random_share(case, share, stratified=True))].bincount(minlength=10)
    exact = case.train.y.bincount(minlength=10) * wanted / 1437
    assert int(taken.sum()) == wanted
    assert float((taken - exact).abs().max()) < 1


def test_a_part_of_classes_takes_rows_of_these_alone():
    asked = part_of_classes(digits(), (2, 5))
    counts = digits().train.y[rows(asked)].bincount(minlength=10)
    assert counts.nonzero()[:, 0].tolist() == [2, 5]
    assert int(counts.sum()) == 143
    assert int(counts.min().item()) == 0
    assert counts[[2, 5]].double().std() < 20


@pytest.mark.parametrize("place", ["top", "middle", "bottom"])
def test_ranked_rows_are_those_that_a_sort_finds(place):
    scores = torch.rand(60, generator=torch.Generator().manual_seed(3))
    order = np.argsort(-scores.numpy(), kind="stable")
    want = {"top": order[:6], "middle": order[27:33], "bottom": order[54:]}[place]
    assert rows(rows_by_rank(CASE, scores, 0.1, place)) == sorted(want.tolist())


NONE = torch.full((60,), float("nan"))
REFUSED = {
    "no row": (lambda: random_share(CASE, 0.001), InputError, "no set to forget"),
    "all rows": (lambda: random_share(CASE, 1.0), InputError, "between 0.017 and 1"),
    "scarce class": (lambda: part_of_classes(CASE, (1,), 0.5), InputError, "30 rows are wanted"),
    "absent class": (lambda: part_of_classes(CASE, (7,), 0.1), InputError, "of the 0 of classes"),
    "undefined scores": (lambda: rows_by_rank(CASE, NONE, 0.1), InputError, "60 not finite"),
    "missing scores": (lambda: rows_by_rank(CASE, NONE[:3], 0.1), InputError, "for each of 60"),
    "overlap": (lambda: entangled(CASE, "high", 0.4), InputError, "use at most a third"),
    "no class": (lambda: mislabelled(toy_case(Regression()), 0.1), UnsupportedError, "one class a"),
    "no training set": (
        lambda: random_share(toy_case(Classification(3)).replace(train=None), 0.1),
        UnsupportedError,
        "no whole training set",
    ),
    "too much poison": (lambda: backdoor(CASE, 40, (2, 3)), InputError, "between 1 and 39"),
    "no swap": (lambda: swap_labels(CASE, 0, 1, 0.01), InputError, "can be tampered with, got 0"),
    "no poison": (lambda: known_part(CASE), InputError, "nothing in this case was tampered"),
    "none known": (lambda: known_part(digits_swapped(), 0.001), InputError, "up to 1 is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_set_is_told_in_a_line(name):
    make, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text) as told:
        make()
    assert "\n" not in str(told.value)


def corner(x):
    return x.reshape(-1, 8, 8)[:, 5:, 5:]


def test_the_trigger_is_in_the_pixels_of_the_poisoned_rows_and_of_no_other():
    plain, bad = digits(), digits_backdoor()
    hit = (bad.train.x != plain.train.x).any(1)
    pixels = (bad.train.x != plain.train.x).any(0).reshape(8, 8)
    assert hit.nonzero()[:, 0].tolist() == bad.manipulated.rows.tolist()
    assert int(hit.sum()) == 72
    assert pixels[5:, 5:].all()
    assert int(pixels.sum()) == 9
    assert corner(bad.train.x[hit]).eq(1.0).all()
    assert not corner(bad.train.x[~hit]).eq(1.0).all(1).all(1).any()


def test_poisoned_rows_are_called_the_target_and_were_not_before():
    plain, bad = digits(), digits_backdoor()
    changed = (bad.train.y != plain.train.y).nonzero()[:, 0]
    assert changed.tolist() == bad.manipulated.rows.tolist()
    assert bad.train.y[changed].unique().tolist() == [0]


def test_a_backdoor_acts_on_the_test_rows_of_other_classes_with_the_trigger():
    plain, harm = digits().test, digits_backdoor().manipulated
    others = plain.y != 0
    assert torch.equal(harm.affected_rows.y, plain.y[others])
    assert corner(harm.affected_rows.x).eq(1.0).all()
    assert torch.equal(harm.attacker_targets.x, harm.affected_rows.x)
    assert harm.attacker_targets.y.unique().tolist() == [0]
    assert harm.unaffected_rows is digits_backdoor().test or torch.equal(
        harm.unaffected_rows.x, plain.x
    )


def test_swapped_rows_have_each_others_label_and_inputs_stay():
    plain, bad = digits(), digits_swapped()
    rows, harm = bad.manipulated.rows, bad.manipulated
    assert torch.equal(bad.train.x, plain.train.x)
    assert (bad.train.y != plain.train.y).nonzero()[:, 0].tolist() == rows.tolist()
    assert torch.equal(bad.train.y[rows] + plain.train.y[rows], torch.full((len(rows),), 8))
    share = len(rows) / int(torch.isin(plain.train.y, torch.tensor([3, 5])).sum())
    assert share == pytest.approx(0.4, abs=0.01)
    assert sorted(harm.affected_rows.y.unique().tolist()) == [3, 5]
    assert torch.equal(
        harm.affected_rows.y + harm.attacker_targets.y, torch.full_like(harm.attacker_targets.y, 8)
    )
    assert not torch.isin(harm.unaffected_rows.y, torch.tensor([3, 5])).any()


def test_a_smaller_known_part_is_part_of_a_larger_one():
    parts = [set(rows(known_part(digits_backdoor(), share))) for share in (0.1, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2]
    assert parts[2] == set(digits_backdoor().manipulated.rows.tolist())


def test_after_a_deletion_the_tampered_rows_are_those_that_are_left():
    case, half = digits_backdoor(), known_part(digits_backdoor(), 0.5)
    left = case.after_deletion(half.request)
    assert len(left.manipulated.rows) == 36
    assert corner(left.train.x[left.manipulated.rows]).eq(1.0).all()
    assert case.after_deletion(known_part(case).request).manipulated is None


def test_a_plain_case_was_not_tampered_with():
    assert digits().manipulated is None
    assert digits().after_deletion(Rows(0)).manipulated is None


def loss_retrained(asked):
    (model,) = uk.oracle(asked.case, asked.request, seeds=1).models
    view = asked.case.partition(asked.request).forget
    with torch.inference_mode():
        return float(torch.nn.functional.cross_entropy(model(view.data.x[view.rows]), view.y))


def test_retraining_shows_on_memorised_rows_and_hardly_on_the_worst_case():
    case = digits().replace(recipe=digits().recipe.model_copy(update={"epochs": 30}))
    lost = {f: loss_retrained(f(case)) for f in (memorised, worst)}
    drawn = loss_retrained(random_share(case, 0.1))
    assert lost[memorised] > 5 * drawn
    assert lost[worst] < drawn / 20


@pytest.fixture(scope="module")
def half():
    asked = uk.catalog.cases()["digits_backdoor"].ask("half_poisoned")
    short = asked.case.recipe.model_copy(update={"epochs": 20})
    return asked.case.replace(recipe=short), asked.request


def test_a_backdoor_opens_and_retraining_without_half_of_it_leaves_it_open(half):
    case, request = half
    done = uk.unlearn(uk.train_original(case).model, case, request, "finetune")
    report = uk.audit(done, oracle=uk.oracle(case, request, seeds=1))
    clean = uk.oracle(case, known_part(case).request, seeds=1).models[0]
    x = case.manipulated.affected_rows.x
    assert report.row("attack_success").original.value > 0.9
    assert report.row("attack_success").oracle.mean > 0.9
    assert report.row("accuracy_corrected").original.value < 0.1
    assert float((clean(x).argmax(1) == 0).double().mean()) < 0.05
    assert report.row("accuracy_elsewhere").original.value > 0.9
    assert (report.request_summary.tampered_rows, report.request_summary.known_share) == (72, 0.5)
    assert report.request_summary.target == "concept"
    assert any("36 of 72 rows that were tampered" in w for w in report.warnings)
    assert "no oracle of that" in report.full()


def test_when_all_tampered_rows_are_known_retraining_is_the_target(half):
    case, _ = half
    request = known_part(case).request
    report = uk.audit(uk.unlearn(uk.train_original(case).model, case, request, "finetune"))
    assert (report.request_summary.known_share, report.request_summary.target) == (1.0, "rows")
    assert not any("tampered" in w for w in report.warnings)
