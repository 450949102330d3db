import torch

from unlearnkit.auditing.splits import choose
from unlearnkit.core.case import Case
from unlearnkit.core.evidence import Split
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime


def case():
    y = torch.arange(60) % 3
    test = torch.cat([torch.zeros(30), torch.ones(10), torch.full((20,), 2)]).long()
    return Case(
        train=(torch.randn(60, 2), y), test=(torch.randn(60, 2), test), task="classification"
    )


def splits(request):
    c = case()
    return choose(c, c.partition(request), Runtime()).views


def test_a_class_request_splits_the_test_rows_into_forgotten_and_kept_classes():
    views = splits(Classes(1))
    assert set(views[Split.TEST].y.tolist()) == {0, 2}
    assert set(views[Split.TEST_FORGET].y.tolist()) == {1}
    assert set(views[Split.HELD_OUT].y.tolist()) == {1}


def test_held_out_rows_have_the_target_mix_of_the_forget_rows():
    views = splits(Rows(0, 1, 2, 3, 4, 6, 9, 12))  # classes 0 1 2 0 1 0 0 0
    counts = torch.bincount(views[Split.HELD_OUT].y, minlength=3).tolist()
    assert counts == [25, 10, 5]


def test_a_row_request_leaves_the_test_rows_whole():
    views = splits(Rows(0, 1, 2))
    assert len(views[Split.TEST]) == 60
    assert Split.TEST_FORGET not in views


def test_forget_and_retain_rows_are_disjoint_and_complete():
    views = splits(Rows(5, 7))
    assert sorted(views[Split.FORGET].rows.tolist() + views[Split.RETAIN].rows.tolist()) == list(
        range(60)
    )
