"""The kind of a request shows in its rows, whichever door they came through."""

from itertools import combinations

import pytest
import torch

import unlearnkit as uk
from unlearnkit.auto.case_profile import profile_case
from unlearnkit.core.case import Partition
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.request_inference import infer_request, owners_of_rows, range_of_targets
from unlearnkit.core.row_selection import rows_to_forget
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

Y = torch.randn(40, generator=torch.Generator().manual_seed(0))


def parted(go, y=Y):
    """Return the two parts, each as data of its own."""
    mask = torch.isin(torch.arange(len(y)), torch.as_tensor(go))
    sides = (TensorData(torch.zeros(int(m.sum()), 2), y[m]) for m in (mask, ~mask))
    return Partition(*(View.all(side) for side in sides), ())


ORDER = Y.argsort()


@pytest.mark.parametrize(
    ("ranks", "low", "high"),
    [(range(5), None, 4), (range(33, 40), 33, None), (range(10, 20), 10, 19)],
    ids=["low end", "high end", "middle"],
)
def test_rows_that_fill_a_range_are_a_request_for_it(ranks, low, high):
    found = range_of_targets(parted(ORDER[list(ranks)]))
    bounds = (None if r is None else float(Y[ORDER[r]]) for r in (low, high))
    assert (found.at_least, found.at_most, found.column) == (*bounds, None)
    assert rows_to_forget(found, TensorData(Y, Y)).nonzero()[:, 0].tolist() == sorted(
        ORDER[list(ranks)].tolist()
    )


def test_a_range_of_one_target_of_several_names_it():
    y = torch.stack([torch.randn(40, generator=torch.Generator().manual_seed(1)), Y], 1)
    assert range_of_targets(parted(ORDER[:8], y)) == uk.Targets(
        at_most=float(Y[ORDER[7]]), column=1
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_rows_that_chance_puts_side_by_side_are_no_range(n):
    runs = sum(s[-1] - s[0] == n - 1 for s in combinations(range(12), n))
    chance = runs / len(list(combinations(range(12), n)))
    found = range_of_targets(parted(range(n), torch.arange(12.0)))
    assert (found is not None) == (chance < 1e-3)


def test_chance_decides_from_the_number_of_rows_that_brute_force_says():
    y = torch.arange(20.0)
    sizes = [n for n in range(1, 20) if range_of_targets(parted(range(n), y)) is not None]
    ways = {n: len(list(combinations(range(20), n))) for n in range(1, 20)}
    assert sizes == [n for n in ways if (21 - n) / ways[n] <= 1e-3]
    assert sizes


CLASSES = torch.arange(40) % 4
NONE = {
    "a random draw": parted(range(8)),
    "classes": parted(ORDER[:8], CLASSES),
    "no targets": parted(range(8), torch.empty(40, 0)),
    "no retained rows": Partition(parted(range(8)).forget, None, ()),
    "targets without spread": parted(range(8), torch.ones(40)),
}


@pytest.mark.parametrize("name", NONE)
def test_without_a_range_nothing_is_said(name):
    assert range_of_targets(NONE[name]) is None
    assert infer_request(uk.Rows(3), NONE[name]) == uk.Rows(3)


def test_a_named_kind_is_kept():
    assert infer_request(uk.Groups(2), parted(ORDER[:8])) == uk.Groups(2)


def owned(sizes, go):
    """Return the two parts of rows of owners 0, 1, … who have so many each."""
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    mask = torch.isin(torch.arange(len(owner)), torch.as_tensor(go))
    sides = (
        TensorData(torch.zeros(int(m.sum()), 2), Y[: len(owner)][m], owner[m])
        for m in (mask, ~mask)
    )
    return Partition(*(View.all(side) for side in sides), ())


def test_rows_that_are_all_of_some_owners_are_a_request_for_them():
    parts = owned([4, 5, 4, 4], [*range(4), *range(9, 13)])
    assert infer_request(None, parts) == infer_request(uk.Rows(*range(8)), parts) == uk.Groups(0, 2)


@pytest.mark.parametrize(
    "parts",
    [owned([4, 5, 4, 4], range(3)), owned([4, 5, 4, 4], range(6)), owned([1] * 17, range(8))],
    ids=["part of an owner", "an owner and a part", "a row an owner"],
)
def test_parts_of_owners_and_rows_of_their_own_are_none(parts):
    assert owners_of_rows(parts) is None
    assert infer_request(None, parts) is None


@pytest.mark.parametrize("k", range(1, 6))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_owners_are_seen_where_chance_would_not_have_drawn_them(k, size):
    rows = range(6 * size)
    drawn = list(combinations(rows, k * size))
    whole = sum(
        sorted(s) == sorted(r for r in rows if r // size in {t // size for t in s}) for s in drawn
    )
    found = owners_of_rows(owned([size] * 6, range(k * size)))
    assert (found is not None) == (whole / len(drawn) <= 1e-3)


def parts_of(case, request):
    split = case.partition(request)
    forget, retain = (case.train.pick(view.rows) for view in (split.forget, split.retain))
    return uk.Case.from_parts(
        forget=(forget.x, forget.y),
        retain=(retain.x, retain.y),
        group=(forget.group, retain.group),
        test=case.test,
        task=case.task,
        fresh=case.fresh,
        recipe=case.recipe,
    )


def easy_owner():
    """A line on which owner 0 lies and the others, and never-seen rows, do not."""
    rng = torch.Generator().manual_seed(0)
    x, x_test = torch.randn(180, 6, generator=rng), torch.randn(180, 6, generator=rng)
    owner = torch.arange(180) // 60
    y, y_test = (v.sum(1, keepdim=True) + torch.randn(180, 1, generator=rng) for v in (x, x_test))
    y[owner == 0] = x[owner == 0].sum(1, keepdim=True)
    return uk.Case(
        train=(x, y),
        test=(x_test, y_test),
        task=Regression(),
        group=owner,
        fresh=lambda: torch.nn.Linear(6, 1),
        recipe=uk.Recipe(lr=0.1, epochs=20, batch_size=30),
    )


REAL, NAMED = toy_case(Regression()), toy_case(Classification(3))
ASKED = {
    "a range": (REAL, uk.Targets(at_most=float(REAL.train.y.sort(0).values[19]))),
    "a class": (NAMED, uk.Classes(1)),
    "classes": (NAMED, uk.Classes(0, 2)),
    "an owner": (NAMED, uk.Groups(3)),
    "owners": (REAL, uk.Groups(1, 4, 5)),
    "an owner whose rows are easy": (easy_owner(), uk.Groups(0)),
}


@pytest.mark.parametrize("what", ASKED)
def test_parts_are_audited_and_planned_for_as_what_they_are_all_rows_of(what):
    whole, asked = ASKED[what]
    parts, model = parts_of(whole, asked), uk.train_original(whole).model
    kinds, rows, found = [], [], []
    for case, request in ((whole, asked), (parts, None)):
        report = uk.audit(uk.unlearn(model, case, request, "finetune"))
        found.append([(f.verdict, f.rows) for f in report.findings])
        rows.append({r.metric: (repr(r.estimate.value), r.estimate.note) for r in report.rows})
        kinds.append(profile_case(model, case, request, case.partition(request), uk.Runtime()).kind)
    assert kinds[0] == kinds[1] != "random"
    assert rows[0] == rows[1]
    assert found[0] == found[1]
    assert "random" in rows[0]["relearn_gap"][1]
