"""Demand of 24 customers of an electricity supplier: made up from a seed, with no download.

No measured data: the curves are drawn by the formulas of ``_curves``, with what real ones are known
for. Homes heat when it is cold, offices rest at week-ends, shops sell most before Sunday, and cold
stores draw more when it is hot. Three years of days; the fourth part of them is never trained on.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(optimizer="adam", lr=3e-3, schedule="cosine", epochs=60, batch_size=64)
KINDS = ("homes", "offices", "shops", "cold stores")
EACH = 6
"""Customers of a kind: number c is of kind c // 6."""

WEEKS, PAST = 156, 14
TRAINED = 104
"""Weeks, days that a forecast looks back, weeks whose forecasts are trained on."""

WEEKLY = (
    (0.95, 0.95, 0.95, 0.97, 1.0, 1.1, 1.08),
    (1.2, 1.2, 1.2, 1.2, 1.1, 0.55, 0.55),
    (0.95, 0.95, 1.0, 1.05, 1.2, 1.4, 0.45),
    (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)
"""Monday to Sunday, by kind."""

HEATING = (0.035, 0.015, 0.01, 0.0)
"""Added share of demand a degree below 15, by kind."""

COOLING = (0.0, 0.01, 0.01, 0.06)
"""Added share of demand a degree above 14, by kind."""


def network() -> nn.Module:
    """Return an untrained perceptron 35-64-64-21: seven days, three quantiles each."""
    return nn.Sequential(
        nn.Linear(2 * PAST + 7, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 21),
        nn.Unflatten(1, (7, 3)),
    )


def _curves() -> tuple[Tensor, Tensor]:
    """Return temperatures ``(D,)`` in degrees and demand ``(24, D)`` of D days from a Monday."""
    rng, days = Runtime().rng("demand/curves"), 7 * WEEKS
    shock = torch.randn(days, generator=rng)
    weather = torch.zeros(days)
    for d in range(1, days):
        weather[d] = 0.8 * weather[d - 1] + 1.8 * shock[d]
    heat = 10 - 10 * torch.cos(2 * math.pi * torch.arange(days) / 365.25) + weather
    kind = torch.arange(len(KINDS) * EACH) // EACH
    week = torch.tensor(WEEKLY)[kind][:, torch.arange(days) % 7]
    cold, hot = (15 - heat).clamp(min=0), (heat - 14).clamp(min=0)
    own = torch.exp(0.25 * torch.randn(2, len(kind), 1, generator=rng))
    response = (
        1
        + own[0] * torch.tensor(HEATING)[kind, None] * cold
        + own[1] * torch.tensor(COOLING)[kind, None] * hot
    )
    level = torch.exp(5 + 0.8 * torch.randn(len(kind), 1, generator=rng))
    noise = torch.exp(0.05 * torch.randn(len(kind), days, generator=rng))
    return heat, level * week * response * noise


@cache
def _sets() -> tuple[TensorData, ...]:
    heat, demand = _curves()
    first = PAST // 7
    start = 7 * torch.arange(first, WEEKS)
    span = start[:, None] + torch.arange(-PAST, 7)
    warm = (heat[span] - 10) / 10
    seen = demand[:, span]
    usual = seen[..., :PAST].mean(2, keepdim=True)
    share = seen / usual
    x = torch.cat([share[..., :PAST] - 1, warm.expand(len(demand), -1, -1)], 2)
    y = share[..., PAST:]
    customer = torch.arange(len(demand))[:, None].expand(-1, len(start))
    week = torch.arange(first, WEEKS)
    late = week >= TRAINED
    test, validation = late & (week % 4 != 0), late & (week % 4 == 0)
    return tuple(
        TensorData(x[:, w].flatten(0, 1), y[:, w].flatten(0, 1), customer[:, w].flatten())
        for w in (~late, test, validation)
    )


@cache
def demand() -> Case:
    """Return the case: forecasts of a week from the 14 days before it and the temperatures.

    2,448 rows of two years to train on; of the third year 936 to test and 312 to calibrate. Demand
    is given as a multiple of its mean over the 14 days, and the temperatures of the week to come
    count as known. A model answers the 0.1, 0.5 and 0.9 quantile of each of seven days under the
    pinball loss. The median is off by 0.055 of a customer's usual demand on test rows, by 0.047 on
    training rows; repeating the last week by 0.08. A row's group is its customer: homes are 0 to 5,
    offices 6 to 11, shops 12 to 17, cold stores 18 to 23.
    """
    train, test, validation = _sets()
    return Case(
        train=train,
        test=test,
        validation=validation,
        task=Regression.infer(train, loss="pinball"),
        fresh=network,
        recipe=RECIPE,
        name="demand",
    )


def cold_stores() -> CaseWithRequest:
    """Forget the six cold stores, customers 18 to 23: nobody else draws more when it is hot."""
    return CaseWithRequest(demand(), Groups(range(3 * EACH, 4 * EACH)))


def one_customer() -> CaseWithRequest:
    """Forget customer 20, a cold store: 102 rows, with five like it that stay."""
    return CaseWithRequest(demand(), Groups(20))


def rising_weeks() -> CaseWithRequest:
    """Forget 194 weeks whose Monday lies more than a quarter above the usual demand."""
    return CaseWithRequest(demand(), Targets(column=0, above=1.25))


def a_random_tenth() -> CaseWithRequest:
    """Forget 244 rows, weeks of customers, drawn at random."""
    return random_tenth(demand())


builtin(
    CaseEntry(
        id="demand",
        make=demand,
        requests={
            "group": cold_stores,
            "customer": one_customer,
            "range": rising_weeks,
            "random_tenth": a_random_tenth,
        },
        doc="made-up daily electricity demand of 24 customers of four kinds; a perceptron that"
        " forecasts a week, in quantiles",
    )
)
