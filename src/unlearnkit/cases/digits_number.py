"""Handwritten digits read as a number: regression on images that come with scikit-learn."""

from functools import cache

from torch import nn

from unlearnkit.cases.digits import digits
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.case import Case
from unlearnkit.core.data import Data, TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(lr=0.02, momentum=0.9, schedule="cosine", epochs=60, batch_size=64)


def network() -> nn.Module:
    """Return an untrained convolutional network for vectors of 64 grey values, with one output.

    Convolutions 3x3 with 16, 32 and 32 filters, the last two of stride 2, then 128-64-1. Without
    batch normalisation: its running statistics upset a restart with shrinking weights.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )


@cache
def digits_number() -> Case:
    """Return the case: 1,437 training, 270 test, 90 validation rows; the target is the digit.

    The loss is the absolute error. Test rows have an error of 0.28, training rows
    of 0.05. A row's group is its digit.
    """
    case = digits()
    assert case.train is not None
    train = _numbers(case.train)
    return case.replace(
        train=train,
        test=_numbers(case.test),
        validation=_numbers(case.validation),
        task=Regression.infer(train, loss="l1"),
        fresh=network,
        recipe=RECIPE,
        name="digits_number",
    )


def _numbers(data: Data | None) -> TensorData:
    assert isinstance(data, TensorData)
    return TensorData(data.x, data.y[:, None].float(), data.y)


def small_numbers() -> CaseWithRequest:
    """Forget 0, 1 and 2, an end of the scale: 430 rows, where retrained models extrapolate."""
    return CaseWithRequest(digits_number(), Targets(below=3))


def one_number() -> CaseWithRequest:
    """Forget the fives, in the middle of the scale, where retrained models may interpolate."""
    return CaseWithRequest(digits_number(), Groups(5))


def a_random_tenth() -> CaseWithRequest:
    """Forget 143 training rows drawn at random."""
    return random_tenth(digits_number())


builtin(
    CaseEntry(
        id="digits_number",
        make=digits_number,
        requests={"range": small_numbers, "group": one_number, "random_tenth": a_random_tenth},
        doc="handwritten digits read as a number, regression under the absolute error"
        " (scikit-learn); a small convolutional network",
    )
)
