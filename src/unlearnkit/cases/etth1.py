"""ETTh1: load of a transformer in China, hour by hour from July 2016 to June 2018.

Zhou et al., AAAI 2021, arXiv:2012.07436. The folder is ``ett`` in the one that ``UNLEARNKIT_DATA``
names, with ``ETTh1.csv``; where no folder is named, the authors' file is fetched.
"""

from datetime import datetime
from functools import cache
from math import isfinite

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import lines
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.cases.temporal_fusion import TemporalFusion
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(optimizer="adam", lr=5e-3, schedule="cosine", epochs=10, batch_size=32)
URL = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "11ab373cf9c9f5be7698e219a5a170e1b1c8a930/ETT-small/ETTh1.csv"
)
FILE = "ETTh1.csv"
HEAD = "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"
TARGET = 0
"""Column that is forecast: the high useful load."""

PAST, AHEAD, STRIDE = 48, 24, 6
"""Hours: those that a forecast looks back on, those it tells, and between two forecasts."""

WEEK, TURN = 7 * 24, (0, 0, 0, 1, 2)
"""Hours of a week; of five weeks three are to train on, one to test, one to calibrate."""

HOURS = 17_420

WINTER = (12, 1, 2)


def network() -> nn.Module:
    """Return an untrained temporal fusion network of width 16 for 11 and 4 variables a step."""
    return TemporalFusion(7 + 4, 4)


@cache
def _hours() -> tuple[Tensor, Tensor, Tensor]:
    """Return loads and temperature ``(H, 7)``, the clock ``(H, 4)`` and the month ``(H,)``."""
    head, *rest = lines("ett", FILE, URL)
    if head != HEAD:
        raise InputError(f"ett: {FILE} starts with {head[:60]!r}, not {HEAD}; fetch it again")
    dates, values = [], []
    for i, line in enumerate(rest):
        date, *numbers = line.split(",")
        try:
            dates.append(datetime.fromisoformat(date))
            values.append([float(v) for v in numbers])
            if len(numbers) != 7 or not all(map(isfinite, values[-1])):
                raise ValueError
        except ValueError:
            raise InputError(
                f"ett: {FILE} line {i + 2} is no hour: expected a date and seven numbers, got"
                f" {line[:60]!r}; fetch it again"
            ) from None
    if len(dates) != HOURS:
        raise InputError(
            f"ett: {FILE} must have {HOURS} hours, got {len(dates)}; fetch it again ({URL})"
        )
    turn = torch.tensor([[d.hour / 24, d.weekday() / 7] for d in dates]) * 2 * torch.pi
    return (
        torch.tensor(values),
        torch.cat([turn.sin(), turn.cos()], 1),
        torch.tensor([d.month for d in dates]),
    )


@cache
def _sets() -> tuple[TensorData, ...]:
    values, clock, month = _hours()
    use = torch.tensor(TURN)[torch.arange(len(values)) // WEEK % len(TURN)]
    base = values[use == 0]
    scaled = ((values - base.mean(0)) / base.std(0, correction=0)).roll(-TARGET, 1)
    told = torch.cat([scaled, clock], 1)
    start = torch.arange(PAST, len(values) - AHEAD + 1, STRIDE)
    span = start[:, None] + torch.arange(-PAST, AHEAD)
    kind = 100 * use + month
    span = span[(kind[span] == kind[span[:, :1]]).all(1)]

    def rows(part: int) -> TensorData:
        hours = span[use[span[:, 0]] == part]
        past, ahead = hours[:, :PAST], hours[:, PAST:]
        x = {"past": told[past], "future": clock[ahead]}
        return TensorData(x, scaled[:, 0][ahead], month[hours[:, 0]])

    return rows(0), rows(1), rows(2)


@cache
def etth1() -> Case:
    """Return the case: forecasts of the load of 24 hours from the 48 before, every six hours.

    Of five weeks three are to train on (1,407 rows), one to test (318) and one to calibrate (309):
    every season has rows that no model saw. No hour is in two of these sets, and none in rows of
    two months. Inputs are the six loads, the temperature of the oil and the clock; all are
    standardised with the training weeks' mean and deviation, the target too: one unit is a load of
    7.1. A model answers three quantiles of each hour under the pinball loss. The median has an
    error of 0.37 on test and training rows, and so has repeating the day before (0.38): this load
    is hard to tell, and what a model adds are the quantiles. A row's group is its month, 1 to 12.
    """
    train, test, validation = _sets()
    return Case(
        train=train,
        test=test,
        validation=validation,
        task=Regression.infer(train, loss="pinball"),
        fresh=network,
        recipe=RECIPE,
        name="etth1",
    )


def winter() -> CaseWithRequest:
    """Forget the winter: December, January and February, 328 rows."""
    return CaseWithRequest(etth1(), Groups(*WINTER))


def high_load() -> CaseWithRequest:
    """Forget forecasts whose first hour lies a deviation or more above the mean: 170 rows."""
    return CaseWithRequest(etth1(), Targets(column=0, at_least=1))


def a_random_tenth() -> CaseWithRequest:
    """Forget a tenth of the training rows drawn at random; their hours are in other rows too."""
    return random_tenth(etth1())


builtin(
    CaseEntry(
        bundled=False,
        id="etth1",
        make=etth1,
        requests={"group": winter, "range": high_load, "random_tenth": a_random_tenth},
        doc="load of a transformer, hourly, forecast a day ahead in quantiles (folder in"
        " UNLEARNKIT_DATA, or the net); a small temporal fusion transformer",
    )
)
