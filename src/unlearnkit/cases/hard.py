"""Forget sets that a trained model points out: memorised rows, entangled rows, the worst case.

The model is the original of seed 0, trained and kept the first time.
"""

from typing import Literal

from torch import Tensor

from unlearnkit.cases.asking import Place, part, ranked
from unlearnkit.cases.builtin import Asked
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.evidence import run
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.course import Course, watch
from unlearnkit.difficulty.entanglement import eccentricity, entanglement
from unlearnkit.difficulty.worst_case import worst_case
from unlearnkit.train.reading import features

Level = Literal["high", "middle", "low"]
_LEVELS: tuple[Level, ...] = ("low", "middle", "high")


def memorised(case: Case, share: float = 0.1, at: Place = "top") -> Asked:
    """Return a case with a request for the rows that one training run learned last, or first.

    By the mean probability of the row's class over epochs. For the leave-out estimate, which takes
    many models, give ``ranked`` the scores of ``leave_out(case).memorised``.

    Args:
        case: Rows of a classification, model factory, recipe.
        share: Of the training rows, rounded down.
        at: ``top`` is the most memorised rows, ``bottom`` a negative control.

    Returns:
        The case and the request.
    """
    return ranked(case, watch(case).memorised(), share, at)


def entangled(case: Case, level: Level, share: float = 0.1) -> Asked:
    """Return a case with a request for rows that are mixed with the rows that stay, or are not.

    RUM's sets: rows are ordered by the distance of their features to the mean of all, and a set is
    taken from the near, the middle and the far end. These three are then ordered by their
    entanglement score, because the order by distance is not that order: on digits the rows near the
    mean and those far from it are of a few classes each, and score 31 and 12, those between 558.

    Args:
        case: Rows of a classification, model factory, recipe.
        level: Which of the three scores.
        share: Of the training rows, rounded down; at most a third.

    Returns:
        The case and the request.

    Raises:
        InputError: If the three sets would overlap.
    """
    if share > 1 / 3:
        raise InputError(f"share: three sets of {share:g} overlap; use at most a third")
    inputs = _features(case, watch(case))
    far = eccentricity(inputs)
    found = [ranked(case, far, share, place) for place in ("bottom", "middle", "top")]
    scores = []
    for asked in found:
        split = case.partition(asked.request)
        assert split.forget is not None
        assert split.retain is not None
        scores.append(entanglement(inputs[split.forget.rows], inputs[split.retain.rows]))
    return found[sorted(range(3), key=scores.__getitem__)[_LEVELS.index(level)]]


def worst(case: Case, share: float = 0.1) -> Asked:
    """Return a case with a request for rows that a model still answers once they are unlearned.

    Args:
        case: Rows of a classification, model factory, recipe.
        share: Of the training rows, rounded down.

    Returns:
        The case and the request, found by ``difficulty.worst_case``.
    """
    course, task = watch(case), case.task
    inputs = _features(case, course)
    assert case.train is not None
    log_p = task.log_probs(run(course.model, View.all(case.train), task, Runtime()).double())
    assert log_p is not None
    rows = worst_case(inputs, log_p, case.train.y, part(case, share))
    return Asked(case, Rows(rows.sort().values))


def _features(case: Case, course: Course) -> Tensor:
    assert case.train is not None
    found = features(course.model, View.all(case.train), case.task, Runtime())
    if found is None:
        raise UnsupportedError(
            "forget set: the last layer is the whole model, or does not get one row of features"
            " for each row; rank rows by memorisation instead"
        )
    return found
