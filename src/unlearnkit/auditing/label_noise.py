"""Label noise: by how much labels of the retain set are worse than those of test rows.

Two models, each trained on half of the retain set, answer the other half and the test rows: both
are rows that they never saw. Where the labels are alike they err equally often on both; what they
err more often on the retain set is in its labels (out-of-sample disagreement as a sign of wrong
labels: Northcutt, Jiang and Chuang, JAIR 2021, arXiv:1911.00068). The audited model plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unlearnkit.auditing.verdict_evaluation import Reason
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.task import predicts_numbers
from unlearnkit.report.schema import MetricRow
from unlearnkit.stats.intervals import welch_interval

RETAINED = ("accuracy_retain", "error_retain")
"""The fit of the retain set: what noisy labels lower in a model that has not memorised them."""

ENSEMBLE_RETAINED = ("ensemble_accuracy_retain", "ensemble_error_retain")
"""The same of a strong audit's models."""

ERROR_ON_TEST = {
    "error_retain": "error_test",
    "ensemble_error_retain": "ensemble_error_test",
}
"""The metric of the error on test rows, by that of the error on the retain set."""

DAMAGE_RULE = (
    "Accuracy or error on the test rows is worse than retrained models' by more than the margin, or"
    " that on the retain set by more than the margin and what noisy labels explain. Where targets"
    " are numbers, noise explains an error up to that of retrained models on test rows."
)

NOISE_RULE = (
    "Neither LEAKS nor OVER-FORGOT, and accuracy or error on the retain set is worse than retrained"
    " models' by more than the margin, but not by more than noisy labels explain: the model has"
    " memorised fewer of them."
)

NOISE_SOURCE = "out-of-sample errors of two half models (after Northcutt et al., 2021)"


@dataclass(frozen=True)
class LabelNoise:
    """How much more often unseen retain rows are answered wrong than test rows."""

    low: float
    high: float
    """95 % interval (Welch), in the unit of an error: a share of rows, or that of a regression."""

    unknown: str = ""
    """Why it could not be measured; empty where it was."""

    of_numbers: bool = False
    """Whether targets are numbers: then all of them are noisy, those of test rows too."""

    def allowance(self, generalisation: float = 0.0) -> float:
        """Return how much fit of retained rows noise may have cost: 0 where none is shown.

        Args:
            generalisation: The error of reference models on test rows less that on the retain set,
                in the unit of the error. It counts where targets are numbers, less what retain rows
                are shown to be easier than test rows.
        """
        more = self.high if self.low > 0 else 0.0
        if self.unknown or not self.of_numbers:
            return more
        return max(0.0, generalisation + more + min(0.0, self.high))

    def __str__(self) -> str:
        if self.unknown:
            return f"whether its labels are noisy could not be measured ({self.unknown})"
        told = "are noisier than" if self.low > 0 else "are not shown to be noisier than"
        return (
            f"its labels {told} those of the test rows: models that never saw them err more often"
            f" there by [{self.low:+.3f}, {self.high:+.3f}]"
        )


@dataclass(frozen=True)
class UtilityGap:
    """A metric of utility on which a model is worse than retrained models, beyond the margin."""

    metric: str
    text: str
    is_noise: bool
    """Whether noisy labels explain it: then it is no damage, but a difference from retraining."""

    @classmethod
    def of(
        cls,
        metric: str,
        text: str,
        beyond: float,
        measure: Callable[[], LabelNoise] | None,
        generalisation: float,
    ) -> UtilityGap:
        """Return a gap; noise is measured for the retain set alone.

        Args:
            metric: Its id.
            text: The numbers, in words.
            beyond: How far the near end of its interval lies beyond the margin.
            measure: Measures the noise; None: labels count as clean.
            generalisation: The error of retrained models on test rows less that on the retain
                set; 0 where it is not known.
        """
        if measure is None or metric not in (*RETAINED, *ENSEMBLE_RETAINED):
            return cls(metric, text, is_noise=False)
        noise = measure()
        if noise.of_numbers:
            text += f"; retrained models err more on test rows, by {generalisation:+.3g}"
        return cls(metric, f"{text}; {noise}", is_noise=beyond <= noise.allowance(generalisation))


def generalisation_gap(metric: str, row_of: Callable[[str], MetricRow | None]) -> float:
    """Return by how much retrained models err more on test rows than on the retain set.

    Args:
        metric: Id of the error on the retain set.
        row_of: Returns the row of a metric; None where there is none.

    Returns:
        The difference, in the unit of the error; 0 where a number is missing.
    """
    means = []
    for name in (ERROR_ON_TEST.get(metric, ""), metric):
        row = row_of(name)
        if row is None or row.oracle is None or row.oracle.mean is None:
            return 0.0
        means.append(row.oracle.mean)
    return means[0] - means[1]


class _WithLosses(Protocol):
    @property
    def losses(self) -> tuple[UtilityGap, ...]: ...


def utility_lost(facts: _WithLosses) -> Iterator[Reason]:
    """Yield each loss of accuracy that noisy labels do not explain."""
    return (Reason(x.text, (x.metric,)) for x in facts.losses if not x.is_noise)


def noise_unlearned(facts: _WithLosses) -> Iterator[Reason]:
    """Yield each lower fit of the retain set that noisy labels explain."""
    return (Reason(x.text, (x.metric,)) for x in facts.losses if x.is_noise)


def label_noise(halves: tuple[Evidence, Evidence], first: Tensor) -> LabelNoise:
    """Return the noise that two models show.

    Args:
        halves: Each with a model that was trained on one half of the retain set, as its unlearned
            model; both on the same retain and test rows.
        first: Which of the retain rows belong to the first model's half ``(N,)``.

    Returns:
        The noise; unknown where a half or the test rows are fewer than two.
    """
    retain = [e.errors(ModelRole.UNLEARNED, Split.RETAIN) for e in halves]
    unseen = torch.where(first, retain[1], retain[0])
    test = torch.stack([e.errors(ModelRole.UNLEARNED, Split.TEST) for e in halves]).mean(0)
    if min(len(unseen), len(test)) < 2:
        return LabelNoise(0.0, 0.0, "there are too few rows")
    numbers = predicts_numbers(halves[0].task, halves[0].targets(Split.TEST))
    return LabelNoise(*welch_interval(unseen, test), of_numbers=numbers)
