"""California housing: 20,640 block groups of the census of 1990, median value of their houses.

Pace and Barry, 1997, *Sparse spatial autoregressions*. The folder is ``california_housing`` in the
one that ``UNLEARNKIT_DATA`` names, with the table ``housing.csv``; where no folder is named,
scikit-learn fetches the same rows.
"""

import csv
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import first_line, folder
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, held_out, standardise
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(optimizer="adam", lr=3e-3, schedule="cosine", epochs=40, batch_size=256)
WHO, FILE = "california_housing", "housing.csv"
COLUMNS = (
    "median_income",
    "housing_median_age",
    "total_rooms",
    "population",
    "households",
    "latitude",
    "longitude",
    "median_house_value",
)
BAY = 37
"""Degree of latitude of San Jose, Oakland and San Francisco."""


def network() -> nn.Module:
    """Return an untrained multi-layer perceptron 7-64-64-1."""
    return nn.Sequential(
        nn.Linear(7, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )


@cache
def _sets() -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    x, y = _table()
    band = x[:, 5].floor().long()
    count = len(y)
    rows = held_out(count, count * 3 // 10, f"{WHO}/held out")
    x = standardise(x, rows[0])
    return tuple((x[r], y[r], band[r]) for r in rows)


def _table() -> tuple[Tensor, Tensor]:
    """Return features ``(N, 7)`` and values ``(N, 1)`` in 100,000 dollars."""
    place = folder(WHO)
    return _fetched() if place is None else _read(place / FILE)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = torch.tensor([[float(row[c]) for c in COLUMNS] for row in rows]).double()
    except FileNotFoundError:
        raise InputError(
            f"{WHO}: no file {str(path)!r}; put the table there, or unset UNLEARNKIT_DATA to have"
            " scikit-learn fetch it"
        ) from None
    except KeyError as e:
        raise InputError(
            f"{WHO}: {str(path)!r} has no column {e.args[0]}; it needs {', '.join(COLUMNS)}"
        ) from None
    except (OSError, ValueError, TypeError) as e:
        raise InputError(
            f"{WHO}: cannot read {str(path)!r}: {first_line(e)}; fetch the table again"
        ) from None
    if len(found) < 10:
        raise InputError(f"{WHO}: {str(path)!r} has {len(found)} rows; fetch the table again")
    income, age, rooms, people, homes, north, east, value = found.unbind(1)
    x = torch.stack([income, age, rooms / homes, people, people / homes, north, east], 1)
    return x, (value[:, None] / 1e5).float()


def _fetched() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import fetch_california_housing  # late: slow to import

    try:
        bunch = fetch_california_housing()
    except OSError as e:
        raise InputError(
            f"{WHO}: scikit-learn cannot fetch it: {first_line(e)}; set UNLEARNKIT_DATA to the"
            f" folder that holds {WHO}/{FILE}"
        ) from None
    x, y = torch.tensor(bunch.data), torch.tensor(bunch.target).float()
    return x[:, [0, 1, 2, 4, 5, 6, 7]], y[:, None]


@cache
def california_housing() -> Case:
    """Return the case: 14,448 training, 4,128 test, 2,064 validation block groups.

    Seven features: income, age of houses, rooms a household, people, people a household, latitude,
    longitude; bedrooms are left out, because some are missing. They are standardised with the
    training rows' mean and deviation. The target is in 100,000 dollars, 0.15 to 5; the loss is the
    absolute error: 0.36 on test rows, 0.35 on training rows. A row's group is its degree of
    latitude, 32 to 41.
    """
    (x, y, band), test, validation = _sets()
    return Case(
        train=(x, y),
        group=band,
        test=TensorData(*test),
        validation=TensorData(*validation),
        task=Regression.infer(TensorData(x, y), loss="l1"),
        fresh=network,
        recipe=RECIPE,
        name=WHO,
    )


def dear_houses() -> CaseWithRequest:
    """Forget block groups whose houses are worth 400,000 dollars and more: 0.09 of the rows."""
    return CaseWithRequest(california_housing(), Targets(at_least=4.0))


def one_region() -> CaseWithRequest:
    """Forget the block groups between 37 and 38 degrees of latitude, the Bay: 0.22 of the rows."""
    return CaseWithRequest(california_housing(), Groups(BAY))


def a_random_tenth() -> CaseWithRequest:
    """Forget a tenth of the training rows, drawn at random."""
    return random_tenth(california_housing())


builtin(
    CaseEntry(
        bundled=False,
        id=WHO,
        make=california_housing,
        requests={"range": dear_houses, "group": one_region, "random_tenth": a_random_tenth},
        doc="20,640 block groups of 1990, value of houses, regression (folder in UNLEARNKIT_DATA,"
        " or scikit-learn's download); a perceptron",
    )
)
