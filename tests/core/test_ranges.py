"""The kind of a request shows in its rows, whichever door they came through."""

from itertools import combinations

import pytest
import torch

import unlearnkit as uk
from unlearnkit.auto.situation import look
from unlearnkit.core.case import Partition
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.marking import marked
from unlearnkit.core.ranges import filled_range, meant
from unlearnkit.tasks.regression import Regression

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
    found = filled_range(parted(ORDER[list(ranks)]))
    bounds = (None if r is None else float(Y[ORDER[r]]) for r in (low, high))
    assert (found.at_least, found.at_most, found.column) == (*bounds, None)
    assert marked(found, TensorData(Y, Y)).nonzero()[:, 0].tolist() == sorted(
        ORDER[list(ranks)].tolist()
    )


def test_a_range_of_one_target_of_several_names_it():
    y = torch.stack([torch.randn(40, generator=torch.Generator().manual_seed(1)), Y], 1)
    assert filled_range(parted(ORDER[:8], y)) == uk.Targets(at_most=float(Y[ORDER[7]]), column=1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_rows_that_chance_puts_side_by_side_are_no_range(n):
    runs = sum(s[-1] - s[0] == n - 1 for s in combinations(range(12), n))
    chance = runs / len(list(combinations(range(12), n)))
    found = filled_range(parted(range(n), torch.arange(12.0)))
    assert (found is not None) == (chance < 1e-3)


def test_chance_decides_from_the_number_of_rows_that_brute_force_says():
    y = torch.arange(20.0)
    sizes = [n for n in range(1, 20) if filled_range(parted(range(n), y)) is not None]
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
    assert filled_range(NONE[name]) is None
    assert meant(uk.Rows(3), NONE[name]) == uk.Rows(3)


def test_a_named_kind_is_kept():
    assert meant(uk.Groups(2), parted(ORDER[:8])) == uk.Groups(2)


def parts_of(case, request):
    split = case.partition(request)
    sides = (case.train.pick(view.rows) for view in (split.forget, split.retain))
    forget, retain = (TensorData(side.x, side.y) for side in sides)
    return uk.Case.from_parts(
        forget=forget,
        retain=retain,
        test=case.test,
        task=case.task,
        fresh=case.fresh,
        recipe=case.recipe,
    )


def test_parts_of_a_range_are_audited_and_planned_for_as_the_range_is():
    whole = Regression().toy(0)
    low = uk.Targets(at_most=float(whole.train.y.sort(0).values[19]))
    parts, model = parts_of(whole, low), uk.train_original(whole).model
    kinds, rows = [], []
    for case, request in ((whole, low), (parts, None)):
        report = uk.audit(uk.unlearn(model, case, request, "finetune"))
        rows.append({r.metric: (repr(r.estimate.value), r.estimate.note) for r in report.rows})
        kinds.append(look(model, case, request, case.partition(request), uk.Runtime()).kind)
    assert kinds[0] == kinds[1] != "random"
    assert rows[0] == rows[1]
    assert "random" in rows[0]["relearn_gap"][1]
