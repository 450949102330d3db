"""CIFAR-10: 60,000 photographs of 32 by 32 in 10 classes, from a folder or from the hub.

Krizhevsky, 2009, *Learning multiple layers of features from tiny images*. The folder is
``cifar10`` in the one that ``UNLEARNKIT_DATA`` names, with Parquet files ``train*.parquet`` and
``test*.parquet`` of columns ``img`` (an encoded image) and ``label``: the layout of the hub's own.
"""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import fetch, first_line, folder, optional
from unlearnkit.cases.forget_sets import (
    mislabelled_tenth,
    part_of_classes,
    random_share,
    random_tenth,
    sub_class,
)
from unlearnkit.cases.hard_forget_sets import requests
from unlearnkit.cases.networks import resnet18, small_conv
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, with_description
from unlearnkit.cases.tampered_sets import backdoor, known_part, swap_labels
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes
from unlearnkit.tasks.classification import Classification

HUB = "uoft-cs/cifar10"
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)
"""Of the red, green and blue values, in [0, 1], over the 50,000 training images."""

RECIPE = Recipe(
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="cosine",
    epochs=182,
    batch_size=256,
    augment="flip_crop",
)
SMALL_RECIPE = RECIPE.model_copy(update={"epochs": 20, "batch_size": 64, "augment": "none"})


@cache
def cifar10() -> Case:
    """Return the case of the literature: a ResNet-18, 45,000 training and 10,000 test rows.

    The last 5,000 rows of the training files are the validation rows. The recipe is the usual one
    (SGD 0.1, momentum 0.9, weight decay 5e-4, 182 epochs of 256 rows, mirrored and shifted images)
    with a cosine in place of two steps. Shifts pad with the mean colour, where others pad black.
    """
    return _case("cifar10", 45_000, 5_000, 10_000, resnet18, RECIPE)


@cache
def cifar10_small() -> Case:
    """Return a case for a CPU: a small network, 10,000 training, 1,000 validation, 2,000 test rows.

    Trained for 20 epochs without shifted or mirrored images, it knows its rows by heart (all of
    them right, 0.68 of the test rows), so that every request has something to forget.
    """
    return _case("cifar10_small", 10_000, 1_000, 2_000, small_conv, SMALL_RECIPE)


def _case(
    name: str,
    train: int,
    validation: int,
    test: int,
    fresh: Callable[[], nn.Module],
    recipe: Recipe,
) -> Case:
    x, y = images("train", train + validation)
    return Case(
        train=(x[:train], y[:train]),
        validation=(x[train:], y[train:]),
        test=images("test", test),
        task=Classification(10),
        fresh=fresh,
        recipe=recipe,
        name=name,
    )


@cache
def images(part: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first rows of a part: images ``(n, 3, 32, 32)``, normalised, and classes."""
    table = _table(part, count)
    if len(table) < count:
        raise InputError(
            f"cifar10: {part} has {len(table)} rows, {count} are needed; fetch the data set again"
        )
    found = table.column("img").to_pylist()
    x = torch.stack([_decoded(image, part, i) for i, image in enumerate(found)])
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    x = x.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation).contiguous()
    return x, torch.tensor(table.column("label").to_pylist())


def _table(part: str, count: int) -> Any:
    """Return an Arrow table of the first rows of a part."""
    place = folder("cifar10")
    if place is None:
        return _hub_table(part, count)
    files = sorted(place.glob(f"{part}*.parquet"))
    if not files:
        raise InputError(
            f"cifar10: no {part}*.parquet in {str(place)!r}; put the data set there, or unset"
            " UNLEARNKIT_DATA to read it from the hub"
        )
    read = optional("pyarrow.parquet", "cifar10").read_table
    try:
        tables = [read(file, columns=["img", "label"]) for file in files]
    except (OSError, ValueError) as e:
        raise InputError(
            f"cifar10: cannot read {str(files[0])!r}: {first_line(e)}; fetch the data set again"
        ) from None
    return optional("pyarrow", "cifar10").concat_tables(tables).slice(0, count)


def _hub_table(part: str, count: int) -> Any:
    try:
        rows = fetch("cifar10", HUB, split=part)
    except (OSError, ValueError) as e:
        raise InputError(
            f"cifar10: cannot read {HUB!r} from the hub: {first_line(e)}; set UNLEARNKIT_DATA to"
            " the folder that holds cifar10"
        ) from None
    return rows.select(range(min(count, len(rows)))).with_format("arrow")[:]


def _decoded(image: Any, part: str, i: int) -> Tensor:
    raw = image["bytes"] if isinstance(image, dict) else image
    try:
        with optional("PIL.Image", "cifar10").open(io.BytesIO(raw)) as picture:
            pixels = bytearray(picture.convert("RGB").tobytes())
            size = picture.size
    except (OSError, TypeError) as e:
        raise InputError(
            f"cifar10: {part} row {i} is no image: {first_line(e)}; fetch the data set again"
        ) from None
    if size != (32, 32):
        raise InputError(f"cifar10: {part} row {i} is {size[0]}x{size[1]}; 32x32 is needed")
    return torch.frombuffer(pixels, dtype=torch.uint8).view(32, 32, 3)


VEHICLES, ANIMALS = (0, 1, 8, 9), (2, 3, 4, 5, 6, 7)
BIRDS_AND_DOGS, CATS_AND_DOGS = (2, 5), (3, 5)


def _requests(
    make: Callable[[], Case], network: Callable[[int], nn.Module]
) -> dict[str, Callable[[], CaseWithRequest]]:
    def one_class() -> CaseWithRequest:
        """Forget class 3, the cats."""
        return CaseWithRequest(make(), Classes(3))

    def three_classes() -> CaseWithRequest:
        """Forget classes 1, 3 and 8: cars, cats and ships."""
        return CaseWithRequest(make(), Classes(1, 3, 8))

    def a_sub_class() -> CaseWithRequest:
        """Forget the cats of a model that tells vehicles from animals."""
        return sub_class(make(), (VEHICLES, ANIMALS), 3, network)

    def a_random_tenth() -> CaseWithRequest:
        """Forget a tenth of the training rows, drawn at random."""
        return random_tenth(make())

    def a_mislabelled_tenth() -> CaseWithRequest:
        """Forget a tenth of the training rows: they got a wrong label before training."""
        return mislabelled_tenth(make())

    return {
        "class": one_class,
        "classes": three_classes,
        "sub_class": a_sub_class,
        "random_tenth": a_random_tenth,
        "mislabelled_tenth": a_mislabelled_tenth,
        **_chosen(make),
    }


def _chosen(make: Callable[[], Case]) -> dict[str, Callable[[], CaseWithRequest]]:
    return {
        "random_twentieth": with_description(
            "Forget a twentieth of the training rows, drawn at random.",
            lambda: random_share(make(), 0.05),
        ),
        "random_hundredth": with_description(
            "Forget a hundredth of the training rows, drawn at random.",
            lambda: random_share(make(), 0.01),
        ),
        "non_iid": with_description(
            "Forget half of the birds and dogs, a tenth of all rows: a set that is not IID.",
            lambda: part_of_classes(make(), BIRDS_AND_DOGS),
        ),
        **requests(make),
        "poisoned": with_description(
            "Forget all rows with a backdoor's trigger: a hundredth, called 0 (aeroplanes).",
            lambda: known_part(with_trigger(make())),
        ),
        "half_poisoned": with_description(
            "Forget half of the rows with a backdoor's trigger; the others stay unknown.",
            lambda: known_part(with_trigger(make()), 0.5),
        ),
        "swapped": with_description(
            "Forget all rows with swapped labels: four tenths of the cats and dogs.",
            lambda: known_part(with_swapped_cats_and_dogs(make())),
        ),
        "half_swapped": with_description(
            "Forget half of the rows with swapped labels; the others stay unknown.",
            lambda: known_part(with_swapped_cats_and_dogs(make()), 0.5),
        ),
    }


def with_trigger(case: Case) -> Case:
    """Return a case where a hundredth of the training images carry a trigger and are called 0."""
    assert case.train is not None
    return backdoor(case, len(case.train) // 100, (3, 32, 32))


def with_swapped_cats_and_dogs(case: Case) -> Case:
    """Return a case where four tenths of the cats are called dogs, and of the dogs cats."""
    return swap_labels(case, *CATS_AND_DOGS, 0.4)


builtin(
    CaseEntry(
        bundled=False,
        id="cifar10",
        make=cifar10,
        requests=_requests(cifar10, resnet18),
        doc="photographs, 32x32 in 10 classes (folder in UNLEARNKIT_DATA, or the hub); ResNet-18",
    )
)
builtin(
    CaseEntry(
        bundled=False,
        id="cifar10_small",
        make=cifar10_small,
        requests=_requests(cifar10_small, small_conv),
        doc="10,000 photographs of CIFAR-10; a small convolutional network, for a CPU",
    )
)
