"""Handwritten digits: 1,797 images of 8 by 8 grey values, bundled with scikit-learn."""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.forget_sets import (
    mislabelled_tenth,
    part_of_classes,
    random_share,
    random_tenth,
    sub_class,
)
from unlearnkit.cases.hard_forget_sets import requests
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, with_description
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes
from unlearnkit.tasks.classification import Classification

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=80, batch_size=64
)
PARITY = (range(0, 10, 2), range(1, 10, 2))


def network(classes: int = 10) -> nn.Module:
    """Return an untrained multi-layer perceptron 64-128-``classes``."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, classes))


@cache
def _sets() -> tuple[tuple[Tensor, Tensor], ...]:
    from sklearn.datasets import load_digits  # late: slow to import
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = torch.tensor(bunch.data / 16.0, dtype=torch.float32)
    y = torch.tensor(bunch.target)
    rows = torch.arange(len(y)).numpy()
    train, rest = train_test_split(rows, train_size=1437, stratify=y, random_state=0)
    test, validation = train_test_split(rest, train_size=270, stratify=y[rest], random_state=0)
    return tuple((x[r], y[r]) for r in (train, test, validation))


@cache
def digits() -> Case:
    """Return the case: 1,437 training, 270 test, 90 validation rows."""
    train, test, validation = _sets()
    return Case(
        train=train,
        test=test,
        validation=validation,
        task=Classification(10),
        fresh=network,
        recipe=RECIPE,
        name="digits",
    )


def one_class() -> CaseWithRequest:
    """Forget class 3: 146 of 1,437 rows."""
    return CaseWithRequest(digits(), Classes(3))


def three_classes() -> CaseWithRequest:
    """Forget classes 1, 3 and 8: 431 rows."""
    return CaseWithRequest(digits(), Classes(1, 3, 8))


def a_sub_class() -> CaseWithRequest:
    """Forget the threes of a model of even and odd; retrained ones still call 0.8 of them odd."""
    return sub_class(digits(), PARITY, 3, network)


def a_random_tenth() -> CaseWithRequest:
    """Forget 143 training rows drawn at random; there is almost no headroom here."""
    return random_tenth(digits())


def a_mislabelled_tenth() -> CaseWithRequest:
    """Forget 143 training rows that got a wrong label, drawn at random, before training."""
    return mislabelled_tenth(digits())


builtin(
    CaseEntry(
        id="digits",
        make=digits,
        requests={
            "class": one_class,
            "classes": three_classes,
            "sub_class": a_sub_class,
            "random_tenth": a_random_tenth,
            "random_twentieth": with_description(
                "Forget 71 training rows drawn at random.", lambda: random_share(digits(), 0.05)
            ),
            "random_hundredth": with_description(
                "Forget 14 training rows drawn at random.", lambda: random_share(digits(), 0.01)
            ),
            "stratified_tenth": with_description(
                "Forget 143 training rows drawn at random, the same share of every class.",
                lambda: random_share(digits(), 0.1, stratified=True),
            ),
            "non_iid": with_description(
                "Forget 143 rows of classes 2 and 5, half of these: a set that is not IID.",
                lambda: part_of_classes(digits(), (2, 5)),
            ),
            **requests(digits),
            "mislabelled_tenth": a_mislabelled_tenth,
        },
        doc="handwritten digits, 8x8 images in 10 classes (scikit-learn); a small perceptron",
    )
)
