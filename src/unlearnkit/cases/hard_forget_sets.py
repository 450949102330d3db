"""Forget sets that trained models select: memorised rows, entangled rows, the hardest rows.

The model is the original of seed 0, for the leave-out estimate those of seeds 0 to 63; they are
trained once and cached.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from unlearnkit.cases.forget_sets import Place, part, rows_by_rank
from unlearnkit.cases.registry import CaseWithRequest, ModelSelectedRequest
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.curvature import curvature
from unlearnkit.difficulty.entanglement import distance_to_mean, entanglement
from unlearnkit.difficulty.holdout_retraining import hold_out
from unlearnkit.difficulty.memorization import leave_out
from unlearnkit.difficulty.self_influence import self_influence
from unlearnkit.difficulty.training_dynamics import Proxy, TrainingDynamics, record_dynamics
from unlearnkit.difficulty.worst_case import worst_case
from unlearnkit.train.features import features

Level = Literal["high", "middle", "low"]
_LEVELS: tuple[Level, ...] = ("low", "middle", "high")

MemorisedBy = Proxy | Literal["curvature", "hold_out", "influence", "leave_out"]
LEAVE_OUT_MODELS = 64


def memorised(
    case: Case,
    share: float = 0.1,
    at: Place = "top",
    *,
    by: MemorisedBy = "confidence",
    rt: Runtime | None = None,
) -> CaseWithRequest:
    """Return a case with a request for the rows that a model knows by heart alone, or least so.

    ``leave_out`` is the estimate itself, from 64 models. All others are proxies of it, from one:
    its course in training (``confidence`` and the other means of ``watch``), the bend of its loss
    (``curvature``), its answers after training on test rows (``hold_out``), the hold of each row on
    its own answer (``influence``). Models retrained without the top tenth of the digits by
    ``confidence`` get 0.7 of it right.

    Args:
        case: Rows of a classification, model factory, recipe.
        share: Of the training rows, rounded down.
        at: ``top`` is the most memorised rows, ``bottom`` a negative control.
        by: What ranks the rows.
        rt: Where to train; its own seed plays no part.

    Returns:
        The case and the request.
    """
    return rows_by_rank(case, memorisation(case, by, rt=rt), share, at)


def memorisation(case: Case, by: MemorisedBy, *, rt: Runtime | None = None) -> Tensor:
    """Return how much each training row is known by heart alone, larger for more.

    Args:
        case: As in ``memorised``.
        by: As there.
        rt: As there.

    Returns:
        One score a row ``(N,)``; only ranks of different scores can be compared.

    Raises:
        UnsupportedError: If the case lacks what a score is read from.
    """
    if by == "leave_out":
        return leave_out(case, models=LEAVE_OUT_MODELS, rt=rt).memorised
    course, here = record_dynamics(case, rt=rt), (rt or Runtime()).fork(0)
    view = _rows(case)
    if by == "influence":
        return self_influence(_features(case, course, here), _log_probs(case, course, here), view.y)
    if by == "hold_out":
        if case.test is None or case.recipe is None:
            raise UnsupportedError("forget set: hold_out needs test rows and a recipe; give test=")
        return hold_out(course.model, view, View.all(case.test), case.task, case.recipe, here)
    if by == "curvature":
        bent = curvature(course.model, view, case.task, here)
        if bent is None:
            raise UnsupportedError(
                "forget set: a loss bends around inputs of one real tensor only; rank rows by"
                " another score"
            )
        return bent
    return course.memorised(by)


def entangled(
    case: Case, level: Level, share: float = 0.1, *, rt: Runtime | None = None
) -> CaseWithRequest:
    """Return a case with a request for rows that are mixed with the rows that stay, or are not.

    RUM's sets: rows are ordered by the distance of their features to the mean of all, and a set is
    taken from the near, the middle and the far end. These three are then ordered by their
    entanglement score, because the order by distance is not that order: on digits the rows near the
    mean and those far from it are of a few classes each, and score 31 and 12, those between 558.

    Args:
        case: Rows of a classification, model factory, recipe.
        level: Which of the three scores.
        share: Of the training rows, rounded down; at most a third.
        rt: Where to train; its own seed plays no part.

    Returns:
        The case and the request.

    Raises:
        InputError: If the three sets would overlap.
    """
    if share > 1 / 3:
        raise InputError(f"share: three sets of {share:g} overlap; use at most a third")
    inputs = _features(case, record_dynamics(case, rt=rt), rt or Runtime())
    far = distance_to_mean(inputs)
    found = [rows_by_rank(case, far, share, place) for place in ("bottom", "middle", "top")]
    scores = []
    for asked in found:
        split = case.partition(asked.request)
        assert split.forget is not None
        assert split.retain is not None
        scores.append(entanglement(inputs[split.forget.rows], inputs[split.retain.rows]))
    return found[sorted(range(3), key=scores.__getitem__)[_LEVELS.index(level)]]


def worst(case: Case, share: float = 0.1, *, rt: Runtime | None = None) -> CaseWithRequest:
    """Return a case with a request for rows that a model still answers once they are unlearned.

    Args:
        case: Rows of a classification, model factory, recipe.
        share: Of the training rows, rounded down.
        rt: Where to train; its own seed plays no part.

    Returns:
        The case and the request, found by ``difficulty.worst_case``.
    """
    course, here = record_dynamics(case, rt=rt), rt or Runtime()
    log_p = _log_probs(case, course, here)
    rows = worst_case(_features(case, course, here), log_p, _rows(case).y, part(case, share))
    return CaseWithRequest(case, case.rows(rows.sort().values))


def requests(make: Callable[[], Case]) -> dict[str, ModelSelectedRequest]:
    """Return the named requests for a tenth of a case's rows that models point out.

    Args:
        make: Builds the case, of a classification.

    Returns:
        By name.
    """

    def ranked_by(by: MemorisedBy, doc: str, at: Place = "top") -> ModelSelectedRequest:
        count = LEAVE_OUT_MODELS if by == "leave_out" else 1
        return ModelSelectedRequest(
            doc, lambda rt: memorised(make(), at=at, by=by, rt=rt), models=count
        )

    return {
        "memorised_tenth": ranked_by(
            "confidence",
            "The tenth with the lowest mean confidence in training; trains one model first.",
        ),
        "unmemorised_tenth": ranked_by(
            "confidence",
            "The tenth with the highest mean confidence, a control; trains one model first.",
            at="bottom",
        ),
        "memorized_tenth_leave_out": ranked_by(
            "leave_out",
            "The tenth with the highest leave-out memorisation; trains 64 models first.",
        ),
        "high_curvature_tenth": ranked_by(
            "curvature",
            "The tenth with the highest loss curvature; trains one model first.",
        ),
        "holdout_sensitive_tenth": ranked_by(
            "hold_out",
            "The tenth whose predictions change most when a model is fine-tuned on test rows;"
            " trains one model first.",
        ),
        "influential_tenth": ranked_by(
            "influence",
            "The tenth with the highest self-influence; trains one model first.",
        ),
        "low_entanglement": ModelSelectedRequest(
            "A tenth far from the mean in feature space; trains one model first.",
            lambda rt: entangled(make(), "low", rt=rt),
        ),
        "middle_entanglement": ModelSelectedRequest(
            "A tenth of middle distance from the mean in feature space; trains one model first.",
            lambda rt: entangled(make(), "middle", rt=rt),
        ),
        "high_entanglement": ModelSelectedRequest(
            "A tenth near the mean in feature space; trains one model first.",
            lambda rt: entangled(make(), "high", rt=rt),
        ),
        "hardest_tenth": ModelSelectedRequest(
            "A tenth that an unlearned model still predicts correctly; trains one model first.",
            lambda rt: worst(make(), rt=rt),
        ),
    }


def _rows(case: Case) -> View:
    assert case.train is not None
    return View.all(case.train)


def _log_probs(case: Case, course: TrainingDynamics, rt: Runtime) -> Tensor:
    log_p = case.task.log_probs(predict(course.model, _rows(case), case.task, rt).double())
    assert log_p is not None
    return log_p


def _features(case: Case, course: TrainingDynamics, rt: Runtime) -> Tensor:
    found = features(course.model, _rows(case), case.task, rt)
    if found is None:
        raise UnsupportedError(
            "forget set: the last layer is the whole model, or does not get one row of features"
            " for each row; rank rows by memorisation instead"
        )
    return found
