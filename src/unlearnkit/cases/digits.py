"""Handwritten digits: 1,797 images of 8 by 8 grey values, bundled with scikit-learn."""

from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.builtin import Asked, BuiltIn, builtin, drawn
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=80, batch_size=64
)


def network() -> nn.Module:
    """Return an untrained multi-layer perceptron 64-128-10."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


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


def digits(labels: Tensor | None = None) -> Case:
    """Return 1,437 training, 270 test and 90 validation rows; ``labels`` replace the true ones."""
    (x, y), test, validation = _sets()
    return Case(
        train=(x, y if labels is None else labels),
        test=test,
        validation=validation,
        task=Classification(10),
        fresh=network,
        recipe=RECIPE,
        name="digits",
    )


def _tenth(stream: str) -> Tensor:
    count = len(_sets()[0][1])
    return torch.tensor(drawn(count, count // 10, stream))


def one_class() -> Asked:
    """Forget class 3: 146 of 1,437 rows."""
    return Asked(digits(), Classes(3))


def random_tenth() -> Asked:
    """Forget 143 training rows drawn at random; there is almost no headroom here."""
    return Asked(digits(), Rows(_tenth("digits/random tenth").tolist()))


def mislabelled_tenth() -> Asked:
    """Forget 143 training rows that got a wrong label, drawn at random, before training."""
    rows = _tenth("digits/mislabelled tenth")
    y = _sets()[0][1].clone()
    shift = torch.randint(1, 10, rows.shape, generator=Runtime().rng("digits/wrong labels"))
    y[rows] = (y[rows] + shift) % 10
    return Asked(digits(y), Rows(rows.tolist()))


builtin(
    BuiltIn(
        id="digits",
        make=digits,
        requests={
            "class": one_class,
            "random_tenth": random_tenth,
            "mislabelled_tenth": mislabelled_tenth,
        },
        doc="handwritten digits, 8x8 images in 10 classes (scikit-learn); a small perceptron",
    )
)
