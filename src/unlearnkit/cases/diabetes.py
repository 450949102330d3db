"""Diabetes: 442 patients, progression after a year, bundled with scikit-learn."""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, held_out, standardise
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(
    lr=0.01, momentum=0.9, weight_decay=5e-3, schedule="cosine", epochs=60, batch_size=32
)
TWENTIES = 2
COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
"""As scikit-learn names them: s1 to s6 are blood serum measurements."""


def network() -> nn.Module:
    """Return an untrained multi-layer perceptron 10-32-1."""
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


@cache
def _sets() -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    from sklearn.datasets import load_diabetes  # late: slow to import

    bunch = load_diabetes(scaled=False)
    x, y = torch.tensor(bunch.data), torch.tensor(bunch.target)
    decade = (x[:, bunch.feature_names.index("age")] // 10).long()
    rows = held_out(len(y), 132, "diabetes/held out")
    x, y = standardise(x, rows[0]), standardise(y, rows[0])
    return tuple((x[r], y[r], decade[r]) for r in rows)


@cache
def diabetes() -> Case:
    """Return the case: 310 training, 88 test, 44 validation patients.

    Features and target are standardised with the training patients' mean and deviation: an error
    of 1 is one deviation of the progression score, about 77 points on its scale of 25 to 346.
    Groups are decades of age: group 2 is the twenties.
    """
    (x, y, decade), test, validation = _sets()
    return Case(
        train=TensorData(x, y, columns=COLUMNS),
        group=decade,
        test=TensorData(*test),
        validation=TensorData(*validation),
        task=Regression.name,
        fresh=network,
        recipe=RECIPE,
        name="diabetes",
    )


def a_random_tenth() -> CaseWithRequest:
    """Forget 31 of 310 training patients, drawn at random."""
    return random_tenth(diabetes())


def one_group() -> CaseWithRequest:
    """Forget all patients in their twenties."""
    return CaseWithRequest(diabetes(), Groups(TWENTIES))


builtin(
    CaseEntry(
        id="diabetes",
        make=diabetes,
        requests={"random_tenth": a_random_tenth, "group": one_group},
        doc="442 patients, progression of diabetes after a year, regression (scikit-learn); a small"
        " perceptron",
    )
)
