"""Small problems on bundled and made data, with several requests each, for judging choices."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments.plays import speeches_of_plays
from unlearnkit.cases.breast_cancer import breast_cancer, one_class, ten_patients
from unlearnkit.cases.cifar10 import images
from unlearnkit.cases.diabetes import diabetes, one_group
from unlearnkit.cases.digits import digits
from unlearnkit.cases.networks import small_conv
from unlearnkit.cases.registry import CaseWithRequest, random_indices, standardise
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification


@dataclass(frozen=True)
class Small:
    """A request on a small case."""

    name: str
    family: str
    """Where the rows come from: cases of one family are left out together."""

    kind: str
    """What the request is: a ``class``, rows with ``wrong`` labels, rows at ``random``, a ``few``
    or ``half`` of all, or a ``group``."""

    make: Callable[[], CaseWithRequest]


@cache
def photographs() -> Case:
    """Return 2,000 photographs with a network with batch normalisation, trained for 12 epochs."""
    x, y = images("train", 2_500)
    recipe = Recipe(
        lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=12, batch_size=64
    )
    return Case(
        train=(x[:2_000], y[:2_000]),
        validation=(x[2_000:], y[2_000:]),
        test=images("test", 1_000),
        task=Classification(10),
        fresh=small_conv,
        recipe=recipe,
        name="2,000 photographs",
    )


def photographs_class() -> CaseWithRequest:
    """Forget the cats of 2,000 photographs."""
    return CaseWithRequest(photographs(), Classes(3))


@cache
def speakers() -> Case:
    """Return speeches of the ten who speak most in a file of plays: who speaks, from the words.

    A speech is given as its weighted word counts (TF-IDF), of words that occur in three speeches.

    Raises:
        InputError: If ``UNLEARNKIT_DATA`` names no folder with the plays.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    read = speeches_of_plays()
    if read is None:
        raise InputError("speakers: set UNLEARNKIT_DATA to the folder that holds shakespeare")
    said = [(who, words) for who, words in read if len(words.split()) >= 4]
    names = [name for name, _ in Counter(who for who, _ in said).most_common(10)]
    mine = [(who, words) for who, words in said if who in names]
    counts = TfidfVectorizer(min_df=3, sublinear_tf=True).fit_transform([w for _, w in mine])
    x = torch.tensor(counts.toarray()).float()
    y = torch.tensor([names.index(who) for who, _ in mine])
    recipe = Recipe(
        lr=0.2, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=40, batch_size=64
    )
    return split(x, y, "speakers", perceptron(x.shape[1], 64, 10), recipe)


def chosen_rows(case: Case, share: float, stream: str) -> Tensor:
    """Return training rows drawn at random."""
    assert case.train is not None
    count = len(case.train)
    return torch.tensor(random_indices(count, round(count * share), f"small/{stream}"))


def random_rows(make: Callable[[], Case], share: float, stream: str) -> CaseWithRequest:
    """Forget rows drawn at random."""
    case = make()
    return CaseWithRequest(case, Rows(chosen_rows(case, share, stream).tolist()))


def wrong_rows(make: Callable[[], Case], share: float, stream: str) -> CaseWithRequest:
    """Forget rows drawn at random that got wrong labels before training."""
    case = make()
    assert case.train is not None
    rows = chosen_rows(case, share, f"{stream}/wrong")
    y = case.train.y.clone()
    count = int(y.max()) + 1
    rng = Runtime().rng(f"small/{stream}/labels")
    shift = torch.randint(1, count, rows.shape, generator=rng)
    y[rows] = (y[rows] + shift) % count
    return CaseWithRequest(case.replace(train=case.train.with_targets(y)), Rows(rows.tolist()))


def perceptron(*widths: int) -> Callable[[], nn.Module]:
    """Return a factory of perceptrons with these widths, inputs and outputs among them."""

    def fresh() -> nn.Module:
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return fresh


def split(x: Tensor, y: Tensor, name: str, fresh: Callable[[], nn.Module], recipe: Recipe) -> Case:
    """Return a classification: of the rows 7 in 10 to train on, 2 to test, 1 to calibrate on."""
    order = torch.randperm(len(y), generator=Runtime().rng(f"small/{name}"))
    ends = [round(len(y) * 0.7), round(len(y) * 0.9)]
    train, test, validation = (part for part in torch.tensor_split(order, ends))
    return Case(
        train=(x[train], y[train]),
        test=(x[test], y[test]),
        validation=(x[validation], y[validation]),
        task=Classification(int(y.max()) + 1),
        fresh=fresh,
        recipe=recipe,
        name=name,
    )


@cache
def digits_deep() -> Case:
    """Return digits, split another way, with a deeper network, fewer epochs and twice the rate."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    recipe = Recipe(
        lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=40, batch_size=64
    )
    x, y = torch.tensor(bunch.data / 16.0).float(), torch.tensor(bunch.target)
    return split(x, y, "digits_deep", perceptron(64, 64, 64, 10), recipe)


@cache
def wine() -> Case:
    """Return wine: 178 bottles of three growers, 13 measures."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    recipe = Recipe(
        lr=0.02, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=60, batch_size=16
    )
    x, y = torch.tensor(bunch.data), torch.tensor(bunch.target)
    x = standardise(x, torch.arange(len(x)))
    return split(x, y, "wine", perceptron(13, 32, 3), recipe)


def mixture(recipe: Recipe, name: str, fresh: Callable[[], nn.Module], spread: float) -> Case:
    """Return 1,600 rows of 8 Gaussian classes in 16 dimensions that overlap."""
    rng = Runtime().rng("small/mixture")
    centre = torch.randn(8, 16, generator=rng)
    y = torch.arange(1600) % 8
    x = centre[y] + spread * torch.randn(1600, 16, generator=rng)
    return split(x, y, name, fresh, recipe)


@cache
def mixture_sgd() -> Case:
    """Return the mixture with SGD."""
    recipe = Recipe(
        lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=40, batch_size=64
    )
    return mixture(recipe, "mixture_sgd", perceptron(16, 64, 8), 1.0)


@cache
def mixture_adam() -> Case:
    """Return the mixture with Adam and a deeper network."""
    recipe = Recipe(optimizer="adam", lr=3e-3, schedule="cosine", epochs=30, batch_size=64)
    return mixture(recipe, "mixture_adam", perceptron(16, 64, 64, 8), 1.0)


def _some(
    family: str, make: Callable[[], Case], classes: tuple[int, ...], name: str
) -> list[Small]:
    def one(c: int) -> Callable[[], CaseWithRequest]:
        return lambda: CaseWithRequest(make(), Classes(c))

    return [
        *(Small(f"{name}/class {c}", family, "class", one(c)) for c in classes),
        Small(f"{name}/wrong", family, "wrong", lambda: wrong_rows(make, 0.1, name)),
        Small(f"{name}/random", family, "random", lambda: random_rows(make, 0.1, name)),
    ]


SMALL: tuple[Small, ...] = (
    *_some("digits", digits, (3,), "digits"),
    *_some("digits", digits_deep, (0, 8), "digits_deep"),
    *_some("wine", wine, (1,), "wine"),
    *_some("mixture", mixture_sgd, (2,), "mixture_sgd"),
    *_some("mixture", mixture_adam, (5,), "mixture_adam"),
    Small("breast_cancer/class", "breast_cancer", "class", one_class),
    Small("breast_cancer/patients", "breast_cancer", "group", ten_patients),
    Small(
        "breast_cancer/wrong",
        "breast_cancer",
        "wrong",
        lambda: wrong_rows(breast_cancer, 0.1, "breast_cancer"),
    ),
    Small(
        "breast_cancer/random",
        "breast_cancer",
        "random",
        lambda: random_rows(breast_cancer, 0.1, "breast_cancer"),
    ),
    *(
        Small(f"{name}/{size}", family, size, partial(random_rows, make, share, f"{name}/{size}"))
        for name, family, make in (
            ("digits", "digits", digits),
            ("mixture_sgd", "mixture", mixture_sgd),
            ("mixture_adam", "mixture", mixture_adam),
        )
        for size, share in (("few", 0.01), ("half", 0.5))
    ),
    Small("diabetes/group", "diabetes", "group", one_group),
    Small("diabetes/random", "diabetes", "random", lambda: random_rows(diabetes, 0.1, "diabetes")),
)
"""All of them; each trains in a second or two."""
