"""Forget sets that any case can be requested: drawn, ranked by a score, wrong labels, sub-classes.

Every draw comes from a seed and the case's name alone: equal arguments, equal rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from unlearnkit.cases.registry import CaseWithRequest, random_indices
from unlearnkit.core.case import Case
from unlearnkit.core.data import Data, TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Groups
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

Place = Literal["top", "middle", "bottom"]
_NAMES = {0.01: "hundredth", 0.05: "twentieth", 0.1: "tenth"}


def random_share(
    case: Case, share: float, *, seed: int = 0, stratified: bool = False
) -> CaseWithRequest:
    """Return a case with a request for training rows drawn at random.

    Args:
        case: With a whole training set.
        share: Of the training rows, rounded down.
        seed: Of the draw.
        stratified: Whether each class gives the same share of its rows, up to one row; the largest
            remainders are rounded up.

    Returns:
        The case and the request.
    """
    train, wanted = whole(case), part(case, share)
    stream = f"{case.name}/random {_NAMES.get(share, f'{share:g}')}"
    if not stratified:
        return CaseWithRequest(case, case.rows(random_indices(len(train), wanted, stream, seed)))
    classes, counts = torch.unique(class_targets(case), return_counts=True)
    exact = counts.double() * wanted / len(train)
    take = exact.floor().long()
    take[(exact - take).argsort(descending=True, stable=True)[: wanted - int(take.sum())]] += 1
    rows: list[int] = []
    for label, count, some in zip(classes, counts.tolist(), take.tolist(), strict=True):
        own = (train.y == label).nonzero()[:, 0]
        rows += own[random_indices(count, some, f"{stream}/class {int(label)}", seed)].tolist()
    return CaseWithRequest(case, case.rows(sorted(rows)))


def random_tenth(case: Case) -> CaseWithRequest:
    """Return a case with a request for a tenth of its training rows, drawn at random."""
    return random_share(case, 0.1)


def part_of_classes(
    case: Case, classes: Sequence[int], share: float = 0.1, *, seed: int = 0
) -> CaseWithRequest:
    """Return a case with a request for some of the rows of a few classes: a set that is not IID.

    Torkzadehmahani et al., TMLR 2025, arXiv:2412.02432: a tenth of CIFAR-10, drawn from birds and
    dogs alone, so half of these.

    Args:
        case: Of a classification.
        classes: Where the rows come from.
        share: Of all training rows, rounded down.
        seed: Of the draw.

    Returns:
        The case and the request.

    Raises:
        InputError: If the classes have no more rows than are wanted.
    """
    wanted = part(case, share)
    own = torch.isin(class_targets(case), torch.tensor(list(classes))).nonzero()[:, 0]
    if len(own) <= wanted:
        raise InputError(
            f"share: {wanted} rows are wanted of the {len(own)} of classes"
            f" {', '.join(map(str, classes))}; name more classes or a smaller share"
        )
    stream = f"{case.name}/part of classes {sorted(classes)}"
    return CaseWithRequest(case, case.rows(own[random_indices(len(own), wanted, stream, seed)]))


def rows_by_rank(
    case: Case, scores: Tensor, share: float = 0.1, at: Place = "top"
) -> CaseWithRequest:
    """Return a case with a request for the rows that a score ranks highest, lowest or midmost.

    Args:
        case: With a whole training set of N rows.
        scores: One number a training row ``(N,)``, such as ``watch(case).memorised()``; ties go by
            position.
        share: Of the training rows, rounded down.
        at: Where in the order: ``top`` is the highest scores.

    Returns:
        The case and the request.

    Raises:
        InputError: If there is not one finite score for each row.
    """
    count, wanted = len(whole(case)), part(case, share)
    bad = int((~torch.isfinite(scores)).sum())
    if scores.shape != (count,) or bad:
        raise InputError(
            f"scores: one finite number for each of {count} training rows is needed, got shape"
            f" {tuple(scores.shape)}, {bad} not finite"
        )
    first = {"top": 0, "middle": (count - wanted) // 2, "bottom": count - wanted}[at]
    order = scores.argsort(descending=True, stable=True)
    return CaseWithRequest(case, case.rows(sorted(order[first : first + wanted].tolist())))


def mislabelled(case: Case, share: float, *, seed: int = 0) -> CaseWithRequest:
    """Return a case, of C classes, whose forget rows have had wrong labels since before training.

    Rows are drawn at random; each gets one of the C - 1 other classes, all equally likely.

    Args:
        case: Of a classification.
        share: Of the training rows, rounded down.
        seed: Of both draws.

    Returns:
        The changed case and the request.
    """
    y = class_targets(case).clone()
    assert isinstance(case.task, Classification)
    stream = f"{case.name}/mislabelled {_NAMES.get(share, f'{share:g}')}"
    rows = random_indices(len(y), part(case, share), stream, seed)
    rng = Runtime(seed=seed).rng(f"{case.name}/wrong labels")
    shift = torch.randint(1, case.task.classes, (len(rows),), generator=rng)
    y[rows] = (y[rows] + shift) % case.task.classes
    return CaseWithRequest(case.replace(train=whole(case).with_targets(y)), case.rows(rows))


def mislabelled_tenth(case: Case) -> CaseWithRequest:
    """Return a case with a request for a tenth of its rows, which got wrong labels."""
    return mislabelled(case, 0.1)


def sub_class(
    case: Case,
    parts: Sequence[Sequence[int]],
    forget: int,
    network: Callable[[int], nn.Module],
) -> CaseWithRequest:
    """Return a case relabelled into super-classes, with a request for one of the old classes.

    A row's group is its old class. The held-out rows are the test rows of the forgotten one, so
    that ``accuracy_held_out`` says how far models generalise to it: a retrained model still
    recognises what resembles the rest of its super-class.

    Args:
        case: Of C classes, its rows in memory.
        parts: Super-classes: together, the C classes, each once.
        forget: The old class that must go.
        network: Builds an untrained model with so many outputs.

    Returns:
        The new case and the request.
    """
    coarse = torch.empty(sum(map(len, parts)), dtype=torch.long)
    for number, classes in enumerate(parts):
        coarse[list(classes)] = number

    def relabelled(data: Data | None) -> TensorData:
        assert isinstance(data, TensorData)
        return replace(data, y=coarse[data.y], group=data.y)

    test = relabelled(case.test)
    assert test.group is not None
    unseen = torch.isin(test.group, torch.tensor([forget])).nonzero()[:, 0]
    made = case.replace(
        train=relabelled(case.train),
        test=test,
        validation=relabelled(case.validation),
        held_out=test.pick(unseen),
        task=Classification(len(parts)),
        fresh=lambda: network(len(parts)),
        name=f"{case.name} in {len(parts)} super-classes",
    )
    return CaseWithRequest(made, Groups(forget))


def whole(case: Case) -> Data:
    """Return a case's training set.

    Args:
        case: Any.

    Returns:
        The training set.

    Raises:
        UnsupportedError: If the case has none.
    """
    if case.train is None:
        raise UnsupportedError("forget set: the case has no whole training set to choose from")
    return case.train


def class_targets(case: Case) -> Tensor:
    """Return the class of each training row ``(N,)``.

    Args:
        case: With a whole training set.

    Returns:
        The classes.

    Raises:
        UnsupportedError: If targets are no classes.
    """
    y = whole(case).y
    if not isinstance(case.task, Classification) or y.ndim != 1:
        raise UnsupportedError(
            f"forget set: this one needs one class a row, got the task {case.task.name}; draw rows"
            " at random or rank them by a score"
        )
    return y


def part(case: Case, share: float) -> int:
    """Return how many rows a share of the training set is, rounded down.

    Args:
        case: With a whole training set.
        share: Above 0 and below 1.

    Returns:
        The number of rows.

    Raises:
        InputError: If that is no row, or not a share.
    """
    count = len(whole(case))
    rows = math.floor(count * share + 1e-9) if 0 < share < 1 else 0
    if not rows:
        raise InputError(
            f"share: {share!r} of {count} training rows is no set to forget; use a number between"
            f" {1 / count:.2g} and 1"
        )
    return rows
