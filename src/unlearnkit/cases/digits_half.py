"""Handwritten digits, half of them for training: a bench for tables of membership numbers."""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, random_indices
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

TRAIN = 900
FORGOTTEN = 90
RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=80, batch_size=64
)


def network() -> nn.Module:
    """Return an untrained perceptron 64-128-10: normal weights of variance 2 and 1 over fan-in."""
    hidden, head = nn.Linear(64, 128), nn.Linear(128, 10)
    for layer, variance in ((hidden, 2 / 64), (head, 1 / 128)):
        nn.init.normal_(layer.weight, std=variance**0.5)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(hidden, nn.ReLU(), head)


@cache
def _sets() -> tuple[tuple[Tensor, Tensor], ...]:
    from sklearn.datasets import load_digits  # late: slow to import
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x, y = torch.tensor(bunch.data / 16.0, dtype=torch.float32), torch.tensor(bunch.target)
    rows = torch.arange(len(y)).numpy()
    parts = train_test_split(rows, train_size=TRAIN, stratify=y, random_state=0)
    return tuple((x[r], y[r]) for r in parts)


@cache
def digits_half() -> Case:
    """Return 900 training and 897 test rows."""
    train, test = _sets()
    return Case(
        train=train,
        test=test,
        task=Classification(10),
        fresh=network,
        recipe=RECIPE,
        name="digits_half",
    )


def _tenth() -> list[int]:
    return list(random_indices(TRAIN, FORGOTTEN, "digits half/random tenth"))


def random_tenth() -> CaseWithRequest:
    """Forget 90 training rows drawn at random."""
    return CaseWithRequest(digits_half(), Rows(_tenth()))


def mislabelled_tenth() -> CaseWithRequest:
    """Forget the same 90 rows, which got a wrong label before training."""
    case, rows = digits_half(), _tenth()
    assert case.train is not None
    y = case.train.y.clone()
    shift = torch.randint(1, 10, (FORGOTTEN,), generator=Runtime().rng("digits half/wrong labels"))
    y[rows] = (y[rows] + shift) % 10
    return CaseWithRequest(case.replace(train=case.train.with_targets(y)), Rows(rows))


builtin(
    CaseEntry(
        id="digits_half",
        make=digits_half,
        requests={"random_tenth": random_tenth, "mislabelled_tenth": mislabelled_tenth},
        doc="handwritten digits, 900 rows to train on and 897 to test; a bench for tables",
    )
)
