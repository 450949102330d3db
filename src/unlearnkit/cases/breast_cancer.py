"""Breast cancer, Wisconsin: 569 patients, 30 measures of cell nuclei, bundled with scikit-learn."""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import (
    CaseEntry,
    CaseWithRequest,
    builtin,
    random_indices,
    standardise,
)
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Groups
from unlearnkit.tasks.classification import Classification

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=60, batch_size=32
)
MALIGNANT = 0


def network() -> nn.Module:
    """Return an untrained multi-layer perceptron 30-32-1: one logit, for the benign class."""
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 1))


@cache
def _sets() -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    from sklearn.datasets import load_breast_cancer  # late: slow to import
    from sklearn.model_selection import train_test_split

    bunch = load_breast_cancer()
    y, patient = torch.tensor(bunch.target), torch.arange(len(bunch.target))
    train, rest = train_test_split(patient.numpy(), train_size=399, stratify=y, random_state=0)
    test, validation = train_test_split(rest, train_size=114, stratify=y[rest], random_state=0)
    x = standardise(torch.tensor(bunch.data), torch.as_tensor(train))
    return tuple((x[r], y[r], patient[r]) for r in (train, test, validation))


def _columns() -> tuple[str, ...]:
    from sklearn.datasets import load_breast_cancer  # late: slow to import

    return tuple(map(str, load_breast_cancer().feature_names))


@cache
def breast_cancer() -> Case:
    """Return the case: 399 training, 114 test, 56 validation patients.

    Classes are 0 malignant and 1 benign. Features are standardised with the training patients'
    mean and deviation. Each patient is one row and one group, numbered 0 to 568 as in the source.
    """
    (x, y, patient), test, validation = _sets()
    return Case(
        train=TensorData(x, y, columns=_columns()),
        group=patient,
        test=test[:2],
        validation=validation[:2],
        task=Classification(2),
        fresh=network,
        recipe=RECIPE,
        name="breast_cancer",
    )


def ten_patients() -> CaseWithRequest:
    """Forget ten patients, drawn at random among those of the training set."""
    patient = _sets()[0][2]
    rows = random_indices(len(patient), 10, "breast_cancer/patients")
    return CaseWithRequest(breast_cancer(), Groups(patient[rows].sort().values.tolist()))


def a_random_tenth() -> CaseWithRequest:
    """Forget 39 of 399 training patients, drawn at random."""
    return random_tenth(breast_cancer())


def one_class() -> CaseWithRequest:
    """Forget all malignant patients: a model that never saw one answers benign throughout."""
    return CaseWithRequest(breast_cancer(), Classes(MALIGNANT))


builtin(
    CaseEntry(
        id="breast_cancer",
        make=breast_cancer,
        requests={"patients": ten_patients, "class": one_class, "random_tenth": a_random_tenth},
        doc="569 patients, malignant or benign from 30 measures (scikit-learn); a small perceptron"
        " with one logit",
    )
)
