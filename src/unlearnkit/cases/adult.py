"""Adult: 48,842 people of the US census of 1994, and whether they earn more than 50,000 dollars.

Kohavi, KDD 1996; UCI machine learning repository. The folder is ``adult`` in the one that
``UNLEARNKIT_DATA`` names, with ``adult.data`` and ``adult.test``.
"""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import lines
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Features
from unlearnkit.tasks.classification import Classification

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
FIELDS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week"),
    "native-country",
)
NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
RECIPE = Recipe(lr=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", epochs=8)
VALIDATED = 4_000
"""Rows of ``adult.test`` that are for validation."""


def network() -> nn.Module:
    """Return an untrained multi-layer perceptron 108-32-1: one logit, for earning more."""
    return nn.Sequential(nn.Linear(108, 32), nn.ReLU(), nn.Linear(32, 1))


def people(file: str) -> list[list[str]]:
    """Return the lines of ``adult.data`` or ``adult.test``: 14 values and the class.

    Args:
        file: Its name.

    Returns:
        The lines.

    Raises:
        InputError: If a line has another number of values.
    """
    told = [line for line in lines("adult", file, URL + file) if not line.startswith("|")]
    found = [[value.strip() for value in line.split(",")] for line in told]
    bad = next((i for i, row in enumerate(found) if len(row) != len(FIELDS) + 1), None)
    if bad is not None:
        raise InputError(
            f"adult: {file} line {bad + 1} has {len(found[bad])} values, {len(FIELDS) + 1} are"
            f" needed; fetch it again ({URL + file})"
        )
    return found


def columns() -> tuple[str, ...]:
    """Return the names of the columns: numbers by field, categories as ``sex=Female``."""
    return tuple(f if c is None else f"{f}={c}" for f, c in _columns())


@cache
def _columns() -> list[tuple[str, str | None]]:
    rows = people("adult.data")
    out: list[tuple[str, str | None]] = []
    for i, field in enumerate(FIELDS):
        values = [None] if field in NUMBERS else sorted({row[i] for row in rows})
        out += [(field, value) for value in values]
    return out


@cache
def _sets() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    train, test = people("adult.data"), people("adult.test")
    found = []
    for rows in (train, test):
        parts = []
        for i, field in enumerate(FIELDS):
            names = [c for f, c in _columns() if f == field]
            if field in NUMBERS:
                parts.append(torch.tensor([[float(row[i])] for row in rows]))
            else:
                place = {name: k for k, name in enumerate(names)}
                known = torch.tensor([place.get(row[i], -1) for row in rows])
                parts.append((known[:, None] == torch.arange(len(names))).float())
        y = torch.tensor([row[-1].rstrip(".") == ">50K" for row in rows]).long()
        found.append((torch.cat(parts, 1), y))
    (x, y), (seen, told) = found
    numeric = torch.tensor([c is None for _, c in _columns()])
    mean, spread = x.mean(0) * numeric, torch.where(numeric, x.std(0, correction=0), 1.0)
    return ((x - mean) / spread, y), ((seen - mean) / spread, told)


@cache
def adult() -> Case:
    """Return the case: 32,561 training, 12,281 test, 4,000 validation people, 108 columns.

    Numbers are standardised with the training rows' mean and deviation; a category, a missing one
    included, is a column of 0 and 1. Classes are 0 (at most 50,000 dollars) and 1. A model tells
    0.85 of the test people; 0.76 earn less.
    """
    (x, y), (seen, told) = _sets()
    return Case(
        train=TensorData(x, y, columns=columns()),
        test=(seen[VALIDATED:], told[VALIDATED:]),
        validation=(seen[:VALIDATED], told[:VALIDATED]),
        task=Classification(2),
        fresh=network,
        recipe=RECIPE,
        name="adult",
    )


def without(field: str) -> CaseWithRequest:
    """Return the case with a request to remove all columns of a field, such as ``sex``."""
    chosen = [name for name in columns() if name.partition("=")[0] == field]
    return CaseWithRequest(adult(), Features(*chosen))


def without_sex() -> CaseWithRequest:
    """Remove the sex: both columns are 0 in every row, from then on."""
    return without("sex")


def without_race() -> CaseWithRequest:
    """Remove the race: its five columns are 0 in every row, from then on."""
    return without("race")


def a_random_tenth() -> CaseWithRequest:
    """Forget 3,256 training people drawn at random."""
    return random_tenth(adult())


builtin(
    CaseEntry(
        bundled=False,
        id="adult",
        make=adult,
        requests={"sex": without_sex, "race": without_race, "random_tenth": a_random_tenth},
        doc="48,842 people of a census and whether they earn more than 50,000 dollars (folder in"
        " UNLEARNKIT_DATA, or the net); a small perceptron with one logit",
    )
)
