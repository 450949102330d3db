import pytest
import torch
from scipy.stats import ks_2samp

from unlearnkit import Case
from unlearnkit.auditing.splits import choose
from unlearnkit.core.evidence import Split
from unlearnkit.core.request import Classes, Rows, Targets
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


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_held_out_rows_that_are_forget_rows_are_left_out_and_told(share):
    c = case()
    gone = torch.arange(0, 60, 3)
    both = gone[: int(share * len(gone))]
    mixed = [torch.cat([a, b[both]]) for a, b in ((c.test.x, c.train.x), (c.test.y, c.train.y))]
    for source in ({"held_out": mixed}, {"test": mixed}):
        leaky = Case(
            train=(c.train.x, c.train.y), task="classification", **{"test": mixed} | source
        )
        found = choose(leaky, leaky.partition(Rows(gone)), Runtime())
        assert any(w.startswith(f"{len(both)} held-out rows are forget") for w in found.warnings)
        assert int(found.views[Split.HELD_OUT].rows.max()) < 60


def test_without_any_other_held_out_row_attacks_cannot_run():
    c = case()
    leaky = c.replace(held_out=c.train.pick(torch.arange(5)))
    found = choose(leaky, leaky.partition(Rows(range(5))), Runtime())
    assert Split.HELD_OUT not in found.views


def real(count=400, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=rng), torch.randn(count, generator=rng)


def chosen(request, test, **more):
    case = Case(train=real(), test=test, task="regression", **more)
    return choose(case, case.partition(request), Runtime(), request)


def test_a_range_of_targets_splits_the_test_rows_and_the_held_out_ones_lie_in_it():
    found = chosen(Targets(above=1.0), real(300, 1))
    assert bool((found.views[Split.TEST].y <= 1).all())
    assert bool((found.views[Split.TEST_FORGET].y > 1).all())
    assert bool((found.views[Split.HELD_OUT].y > 1).all())
    assert len(found.views[Split.TEST]) + len(found.views[Split.TEST_FORGET]) == 300


def test_a_range_of_one_target_of_several_splits_by_that_one():
    train, test = ((x, torch.stack([y, -y], 1)) for x, y in (real(300, 1), real(300, 2)))
    case = Case(train=train, test=test, task="regression")
    request = Targets("target[1]>1")
    views = choose(case, case.partition(request), Runtime(), request).views
    assert bool((views[Split.TEST_FORGET].y[:, 0] < -1).all())
    assert bool((views[Split.HELD_OUT].y[:, 1] > 1).all())


@pytest.mark.parametrize("width", [1, 3])
def test_held_out_rows_have_the_mix_of_real_targets_of_the_forget_rows(width):
    x, y = real(1000, 2)
    columns = torch.stack([y, 2 * y + 1, -y], 1)[:, :width]
    # An owner whose targets are large.
    go = Rows(
        (y[:500] + 0.5 * torch.randn(500, generator=Runtime().rng("g")) > 0.8).nonzero()[:, 0]
    )
    case = Case(train=(x[:500], columns[:500]), test=(x[500:], columns[500:]), task="regression")
    found = choose(case, case.partition(go), Runtime(), go)
    forget, held = found.views[Split.FORGET].y[:, 0], found.views[Split.HELD_OUT].y[:, 0]
    assert ks_2samp(forget, y[500:]).pvalue < 1e-9
    assert ks_2samp(forget, held).pvalue > 0.05
    assert len(held) > 20


@pytest.mark.parametrize("source", ["test", "held_out"])
def test_no_never_seen_row_in_the_range_is_a_warning_and_no_split(source):
    low = (real(50, 1)[0], real(50, 1)[1] - 10)
    found = (
        chosen(Targets(above=1.0), low)
        if source == "test"
        else chosen(Targets(above=1.0), real(300, 1), held_out=low)
    )
    assert Split.HELD_OUT not in found.views
    assert any("no held-out row has a target like the forget rows'" in w for w in found.warnings)


def test_few_never_seen_rows_are_matched_by_range_alone_and_that_is_said():
    found = chosen(Targets(above=1.0), real(60, 1))
    assert len(found.views[Split.HELD_OUT]) < 20
    assert any("matched by the range of these alone" in w for w in found.warnings)


def test_test_rows_that_all_lie_in_the_range_are_told():
    found = chosen(Targets(above=1.0), (real(40, 1)[0], real(40, 1)[1].abs() + 1.5))
    assert len(found.views[Split.TEST]) == 0
    assert any("every test row is of the forgotten kind" in w for w in found.warnings)


def test_targets_without_spread_keep_all_held_out_rows_without_a_word():
    case = Case(
        train=(real()[0], torch.ones(400)), test=(real(50, 1)[0], torch.ones(50)), task="regression"
    )
    found = choose(case, case.partition(Rows(range(20))), Runtime(), Rows(range(20)))
    assert len(found.views[Split.HELD_OUT]) == 50
    assert not any("matched" in w for w in found.warnings)


def test_several_labels_are_not_taken_for_numbers():
    y = (torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) > 0).float()
    case = Case(train=(torch.randn(60, 2), y), test=(torch.randn(60, 2), y), task="multilabel")
    found = choose(case, case.partition(Rows(range(9))), Runtime(), Rows(range(9)))
    assert len(found.views[Split.HELD_OUT]) == 60
    assert any("targets are no classes" in w for w in found.warnings)
