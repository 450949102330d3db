"""Overlap: rows that the forget sets of tuning and evaluation share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unlearnkit.core.errors import InputError
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.spec import Study


def check_no_overlap(study: Study, case: str, problems: StudyProblems) -> dict[str, int]:
    """Return how many rows the forget sets of tuning and study share, by the two requests.

    Two random forget sets of one training set share rows by chance. Allowed are the mean plus
    three standard deviations of the hypergeometric distribution, and less than half of the
    smaller set: another class or another random tenth passes, the same rows in other words do not.

    Returns:
        Pairs of requests that share rows.

    Raises:
        InputError: If two forget sets share more.
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
            if both > max_chance_overlap(*sizes, mine.total) or 2 * both >= min(sizes):
                raise InputError(
                    f"study: tune: {request!r} has {both} of its {len(mine.rows)} forget rows in"
                    f" common with {other.request!r}, which the study judges by; tune on other"
                    " classes or rows"
                )
            if both:
                shared[f"{request} and {other.request}"] = both
    return shared


def max_chance_overlap(first: int, second: int, total: int) -> float:
    """Return ``m + 3 s`` of the hypergeometric distribution of the rows that two sets share."""
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
