"""Requests that several cases share: rows drawn at random, wrong labels, parts of a super-class."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from unlearnkit.cases.builtin import Asked, drawn
from unlearnkit.core.case import Case
from unlearnkit.core.data import Data, TensorData
from unlearnkit.core.request import Groups, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification


def random_tenth(case: Case) -> Asked:
    """Return a case with a request for a tenth of its training rows, drawn at random."""
    return Asked(case, Rows(_tenth(case, "random tenth")))


def mislabelled_tenth(case: Case) -> Asked:
    """Return a case, of C classes, whose forget rows have had wrong labels since before training.

    A tenth of the training rows is drawn at random; each gets one of the C - 1 other classes, all
    equally likely.
    """
    assert case.train is not None
    assert isinstance(case.task, Classification)
    rows, y = _tenth(case, "mislabelled tenth"), case.train.y.clone()
    rng = Runtime().rng(f"{case.name}/wrong labels")
    shift = torch.randint(1, case.task.classes, (len(rows),), generator=rng)
    y[rows] = (y[rows] + shift) % case.task.classes
    return Asked(case.with_(train=case.train.with_targets(y)), Rows(rows))


def sub_class(
    case: Case,
    parts: Sequence[Sequence[int]],
    forget: int,
    network: Callable[[int], nn.Module],
) -> Asked:
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
    made = case.with_(
        train=relabelled(case.train),
        test=test,
        validation=relabelled(case.validation),
        held_out=test.pick(unseen),
        task=Classification(len(parts)),
        fresh=lambda: network(len(parts)),
        name=f"{case.name} in {len(parts)} super-classes",
    )
    return Asked(made, Groups(forget))


def _tenth(case: Case, stream: str) -> list[int]:
    assert case.train is not None
    count = len(case.train)
    return drawn(count, count // 10, f"{case.name}/{stream}")
