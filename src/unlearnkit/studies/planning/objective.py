"""Tuning objective: the distance of an unlearned model from its oracles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError

Values = Mapping[tuple[str, str], float | None]
"""Numbers of one run, by metric and model."""

POINT = 5.0
"""What a gap of 1 in retained or test accuracy weighs: a point is a twentieth of the distance."""

METRICS = (
    *("js_forget", "divergence_forget", "margin_auc"),
    *("accuracy_forget", "accuracy_retain", "accuracy_test"),
    *("error_forget", "error_retain", "error_test"),
    "cost_ratio",
)
"""All that is read."""

WORDS = (
    "mean over forget sets and seeds of: the distance to the oracles on forget rows that is left"
    " (Jensen-Shannon, or the task's own; 0 as between two oracles, 1 as the original); plus the"
    " gap to the oracles' forget accuracy and twice the gap to their membership AUC, either way;"
    " plus 5 times the gaps to their retained and test accuracy, either way. Gaps of errors, where"
    " the task has no accuracy, are shares of the oracles' error. Lower is better. Settings that"
    " cost more than the budget stand behind all that do not"
)


class TrialScore(FrozenModel):
    """An objective with its parts; all but the cost are 0 for a model that equals an oracle."""

    left: float
    """Distance on forget rows that is left."""

    forget: float
    """Gap of forget accuracy (or error), either way."""

    membership: float
    """Gap of the membership AUC, either way; 0 where it is not measured."""

    retain: float
    """Gap of retained accuracy (or error), either way."""

    test: float
    """Gap of test accuracy (or error), either way; 0 where there are no test rows."""

    cost: float
    """Share of retraining's cost."""

    @property
    def value(self) -> float:
        """Return the objective."""
        weighted = POINT * (self.retain + self.test)
        return self.left + self.forget + 2 * self.membership + weighted

    def exceeds(self, budget: float) -> bool:
        """Return whether it costs more than a budget."""
        return self.cost > budget

    @classmethod
    def mean(cls, scores: Iterable[TrialScore]) -> TrialScore:
        """Return the mean of some scores, part by part."""
        each = list(scores)
        parts = {name: fmean(getattr(s, name) for s in each) for name in cls.model_fields}
        return cls(**parts)


def score(values: Values) -> TrialScore:
    """Return the score of one run against its oracles.

    Args:
        values: Of ``METRICS``: for the unlearned model, the original and two oracles or more.

    Returns:
        The score.

    Raises:
        InputError: If a number that it needs is undefined or infinite.
    """
    distance = "js_forget" if ("js_forget", "unlearned") in values else "divergence_forget"
    right = "accuracy" if ("accuracy_retain", "unlearned") in values else "error"
    relative = right == "error"
    membership = ("margin_auc", "unlearned") in values
    tested = (f"{right}_test", "unlearned") in values
    found = TrialScore(
        left=_left(values, distance),
        forget=_gap(values, f"{right}_forget", relative=relative),
        membership=_gap(values, "margin_auc") if membership else 0.0,
        retain=_gap(values, f"{right}_retain", relative=relative),
        test=_gap(values, f"{right}_test", relative=relative) if tested else 0.0,
        cost=_known(values, "cost_ratio", "unlearned"),
    )
    if not math.isfinite(found.value + found.cost):
        raise InputError(f"tune: the objective is {found.value}; the model's answers are extreme")
    return found


def _left(values: Values, metric: str) -> float:
    """Return the distance beyond that of two oracles, over the original's or the oracles' own."""
    floor = fmean(_oracles(values, metric))
    excess = max(0.0, _known(values, metric, "unlearned") - floor)
    unit = max(_known(values, metric, "original") - floor, floor)
    return excess / unit if excess else 0.0


def _gap(values: Values, metric: str, *, relative: bool = False) -> float:
    theirs = fmean(_oracles(values, metric))
    gap = abs(_known(values, metric, "unlearned") - theirs)
    return gap / theirs if relative and theirs else gap


def _oracles(values: Values, metric: str) -> list[float]:
    found = [
        v
        for (m, who), v in values.items()
        if m == metric and who.startswith("oracle")
        if v is not None
    ]
    if not found:
        raise InputError(f"tune: {metric} is undefined for the oracles; choose other forget sets")
    return found


def _known(values: Values, metric: str, who: str) -> float:
    value = values.get((metric, who))
    if value is None:
        raise InputError(f"tune: {metric} of the {who} model is undefined")
    return value
