"""The made-up demand is what its description says: weeks of customers of four kinds."""

import numpy as np
import pytest
import torch

from unlearnkit.cases import demand as home
from unlearnkit.cases.digits import digits
from unlearnkit.cases.digits_number import digits_number


def test_a_row_is_a_week_of_a_customer_after_the_fourteen_days_before_it():
    heat, demand = (t.double().numpy() for t in home._curves())
    case = home.demand()
    for k in (0, 101, 102, 777, 2447):
        customer, week = k // 102, 2 + k % 102
        day = 7 * week
        usual = demand[customer, day - 14 : day].mean()
        past = demand[customer, day - 14 : day] / usual - 1
        warm = (heat[day - 14 : day + 7] - 10) / 10
        np.testing.assert_allclose(case.train.x[k], [*past, *warm], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            case.train.y[k], demand[customer, day : day + 7] / usual, rtol=1e-4
        )
        assert int(case.train.group[k]) == customer


def test_weeks_to_test_on_lie_in_the_third_year():
    heat = home._curves()[0]
    case = home.demand()
    warm = [(heat[7 * w : 7 * w + 7] - 10) / 10 for w in range(104, 156)]
    for data, kept in ((case.test, [1, 2, 3]), (case.validation, [0])):
        want = torch.stack([h for w, h in enumerate(warm) if w % 4 in kept])
        torch.testing.assert_close(data.x[: len(want), -7:], want)


def kind_means(days):
    """Return the mean demand of each kind on some days, as a multiple of its mean on all."""
    demand = home._curves()[1]
    share = demand[:, days].mean(1) / demand.mean(1)
    return share.view(4, -1).mean(1).tolist()


def test_cold_stores_alone_draw_much_more_when_it_is_hot():
    homes, offices, shops, cold = kind_means(home._curves()[0] > 20)
    assert cold > 1.2
    assert max(homes, offices, shops) < 1.1


def test_homes_draw_most_when_it_is_cold():
    homes, *others = kind_means(home._curves()[0] < 5)
    assert homes > 1.15
    assert homes > max(others)


@pytest.mark.parametrize(("kind", "day"), [(1, 6), (2, 6)])
def test_offices_and_shops_rest_on_sundays(kind, day):
    days = torch.arange(7 * home.WEEKS) % 7 == day
    assert kind_means(days)[kind] < 0.7


def test_seven_days_have_three_quantiles_each():
    case = home.demand()
    assert case.fresh()(case.test.x[:5]).shape == (5, 7, 3)
    assert case.task.spec()["width"] == 7


def test_digits_as_numbers_are_the_digits():
    ours, plain = digits_number(), digits()
    for a, b in ((ours.train, plain.train), (ours.test, plain.test)):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y[:, 0], b.y.float())
        assert torch.equal(a.group, b.y)
    assert ours.fresh()(ours.test.x).shape == (270, 1)
