"""Training sets that somebody tampered with, of which all bad rows are known or only some.

The tamperings are those of Goel et al., TMLR 2024, arXiv:2402.14015, and of its published code.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unlearnkit.cases.forget_sets import class_targets, whole
from unlearnkit.cases.registry import CaseWithRequest, random_indices, with_description
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.tampering import Tampering

PATCH = 3
"""Side of the trigger, in pixels."""


def backdoor(
    case: Case, rows: int, shape: tuple[int, ...], *, target: int = 0, seed: int = 0
) -> Case:
    """Return a case where some training images carry a trigger and the label of one class.

    The trigger is a square of 3 by 3 pixels in the bottom right corner, as bright as the brightest
    training pixel. Published code draws rows of the target class too, whose labels stay right; here
    every tampered row gets a wrong label, and the affected rows are the test rows of the other
    classes with the trigger on them.

    Args:
        case: Images in memory.
        rows: How many training rows.
        shape: Of an image; height and width come last.
        target: The class that rows with the trigger shall be called.
        seed: Of the draw.

    Returns:
        The case, its held-out rows being rows with the trigger and the target as label.
    """
    train, test = _in_memory(case)
    others = (train.y != target).nonzero()[:, 0]
    bad = others[_some(len(others), rows, f"{case.name}/backdoor", seed)]
    bright = float(_images(train).max())
    x, y = _images(train).clone(), train.y.clone()
    x[bad] = add_patch(x[bad], shape, bright)
    y[bad] = target
    seen = test.pick((test.y != target).nonzero()[:, 0])
    seen = replace(seen, x=add_patch(_images(seen), shape, bright))
    aimed = seen.with_targets(torch.full_like(seen.y, target))
    return case.replace(
        train=replace(train, x=x, y=y),
        held_out=aimed,
        manipulated=Tampering(
            bad, affected_rows=seen, attacker_targets=aimed, unaffected_rows=test
        ),
        name=f"{case.name}_backdoor",
    )


def swap_labels(case: Case, first: int, second: int, share: float, *, seed: int = 0) -> Case:
    """Return a case where a share of the training rows of two classes have each other's label.

    Args:
        case: Rows in memory.
        first: A class.
        second: Another.
        share: Of the rows of each, rounded.
        seed: Of the draw.

    Returns:
        The case; the affected rows are the test rows of the two classes, the held-out rows the same
        with each other's label.
    """
    train, test = _in_memory(case)
    found, y = [], train.y.clone()
    for label, other in ((first, second), (second, first)):
        own = (train.y == label).nonzero()[:, 0]
        bad = own[_some(len(own), round(share * len(own)), f"{case.name}/swap/{label}", seed)]
        y[bad] = other
        found.append(bad)
    confused = torch.isin(test.y, torch.tensor([first, second]))
    seen = test.pick(confused.nonzero()[:, 0])
    aimed = seen.with_targets(first + second - seen.y)
    rest = test.pick((~confused).nonzero()[:, 0])
    rows = torch.cat(found).sort().values
    return case.replace(
        train=train.with_targets(y),
        held_out=aimed,
        manipulated=Tampering(
            rows, affected_rows=seen, attacker_targets=aimed, unaffected_rows=rest
        ),
        name=f"{case.name}_swapped",
    )


def known_part(case: Case, share: float = 1.0, *, seed: int = 0) -> CaseWithRequest:
    """Return a case with a request for a share of its tampered rows: those that were found.

    Args:
        case: Whose training set somebody tampered with.
        share: Of the tampered rows; a smaller share is part of a larger one.
        seed: Of the draw.

    Returns:
        The case and the request.

    Raises:
        InputError: If nothing was tampered with, or the share is none.
    """
    if case.manipulated is None:
        raise InputError("known: nothing in this case was tampered with; use backdoor or swapped")
    rows = case.manipulated.rows
    count = round(share * len(rows)) if 0 < share <= 1 else 0
    if not count:
        raise InputError(f"known: a share above 0 and up to 1 is needed, got {share!r}")
    order = torch.randperm(len(rows), generator=Runtime(seed=seed).rng(f"{case.name}/known"))
    return CaseWithRequest(case, Rows(rows[order[:count]].sort().values.tolist()))


def known_parts(make: Callable[[], Case]) -> Mapping[str, Callable[[], CaseWithRequest]]:
    """Return the named requests of a tampered case: all, half and a tenth of the bad rows."""
    return {
        "all_poisoned": with_description(
            "Forget every row that was tampered with.", lambda: known_part(make())
        ),
        "half_poisoned": with_description(
            "Forget half of the rows that were tampered with; the others stay unknown.",
            lambda: known_part(make(), 0.5),
        ),
        "tenth_poisoned": with_description(
            "Forget a tenth of the rows that were tampered with; the others stay unknown.",
            lambda: known_part(make(), 0.1),
        ),
    }


def add_patch(x: Tensor, shape: tuple[int, ...], value: float) -> Tensor:
    """Return images with the trigger in the bottom right corner.

    Args:
        x: Images ``(N, ...)``, flat or not.
        shape: Of an image; height and width come last.
        value: Of its pixels, in every channel.

    Returns:
        New images, of the shape of ``x``.
    """
    images = x.reshape(len(x), *shape).clone()
    images[..., -PATCH:, -PATCH:] = value
    return images.reshape(x.shape)


def _some(count: int, wanted: int, stream: str, seed: int) -> list[int]:
    if not 0 < wanted < count:
        raise InputError(f"rows: between 1 and {count - 1} can be tampered with, got {wanted}")
    return random_indices(count, wanted, stream, seed)


def _in_memory(case: Case) -> tuple[TensorData, TensorData]:
    class_targets(case)
    train, test = whole(case), case.test
    if not (isinstance(train, TensorData) and isinstance(test, TensorData)):
        raise UnsupportedError("forget set: tampering needs training and test rows in memory")
    return train, test


def _images(data: TensorData) -> Tensor:
    if not isinstance(data.x, Tensor):
        raise UnsupportedError("forget set: a trigger needs inputs of one tensor a row")
    return data.x
