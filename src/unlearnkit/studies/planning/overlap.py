"""Overlap: whether the forget sets of tuning and of the study have rows in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unlearnkit.core.errors import InputError
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.spec import Study


def check_apart(study: Study, case: str, problems: StudyProblems) -> dict[str, int]:
    """Refuse a search on forget rows that the study is going to judge by.

    On the same training set, two forget sets may have as many rows in common as two sets of their
    sizes that are drawn at random: the mean plus three deviations of the hypergeometric
    distribution, but never half of the smaller one. So another class is fine, and another random
    tenth; the same rows under other words, a part of them, or a class within several are not.

    Args:
        study: With a ``tune`` block.
        case: One of its cases.
        problems: Of the study.

    Returns:
        The rows in common, by the two requests, where there are any.

    Raises:
        InputError: If two forget sets have more in common.
    """
    assert study.tune is not None
    judged = [_set(study, case, r, problems) for r in study.requests[case]]
    shared = {}
    for request in study.tune.requests[case]:
        mine = _set(study, case, request, problems)
        for other in judged:
            if mine.training != other.training:
                continue
            both = len(mine.rows & other.rows)
            sizes = len(mine.rows), len(other.rows)
            if both > by_chance(*sizes, mine.total) or 2 * both >= min(sizes):
                raise InputError(
                    f"study: tune: {request!r} has {both} of its {len(mine.rows)} forget rows in"
                    f" common with {other.request!r}, which the study judges by; tune on other"
                    " classes or rows"
                )
            if both:
                shared[f"{request} and {other.request}"] = both
    return shared


def by_chance(first: int, second: int, total: int) -> float:
    """Return the most rows in common that are put down to chance.

    Args:
        first: Size of one set.
        second: Size of the other.
        total: Rows that both are drawn from; more than one.

    Returns:
        ``m + 3 s`` of the hypergeometric distribution: ``m = a b / n`` and ``s^2 = m (1 - a / n)
        (n - b) / (n - 1)``.
    """
    mean = first * second / total
    spread = mean * (1 - first / total) * (total - second) / (total - 1)
    return mean + 3 * math.sqrt(spread)


@dataclass(frozen=True)
class _Set:
    request: str
    rows: frozenset[int]
    training: str
    total: int


def _set(study: Study, case: str, request: str, problems: StudyProblems) -> _Set:
    subject = problems.get(case, request, study.device, study.precision)
    drop, train = subject.parts.forget, subject.case.train
    if drop is None or train is None:
        raise InputError(f"study: tune: {case} has no whole training set to search on")
    return _Set(request, frozenset(drop.rows.tolist()), train.key(), len(train))
