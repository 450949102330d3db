"""Loss of utility: how much worse a model answers validation rows than the original."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Batch, View
from unlearnkit.core.inference import predict
from unlearnkit.core.request import ForgetRequest, Targets
from unlearnkit.core.row_selection import in_range
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task, predicts_numbers
from unlearnkit.train.early_stopping import rows_of_removed_classes
from unlearnkit.train.rng_guard import seeded_global_rngs

POINT = 0.01
"""Loss above which a model is worse than a default may be: a point of accuracy, or a hundredth of
the targets' deviation."""

ROWS = 2_000
"""Most validation rows that are read."""


@dataclass(frozen=True)
class UtilityLoss:
    """Errors of the original and of another model on the same validation rows."""

    before: float
    """Mean error of the original, in the task's unit."""

    after: float
    """Mean error of the other model."""

    count: int
    """Validation rows of kept classes, or of the kept range."""

    unit: float
    """What the errors are divided by: 1, or the deviation of real targets."""

    error: float
    """Standard error of the mean difference over rows, in the task's unit."""

    classes: bool
    """Whether errors are shares of wrong answers."""

    @property
    def lost(self) -> float:
        """Return the loss, as a fraction of ``unit``; negative where the model is better."""
        return (self.after - self.before) / self.unit

    @property
    def more_than_a_point(self) -> bool:
        """Return whether a default must not lose as much, if it is no chance."""
        return not self.lost <= POINT

    def beyond(self, errors: float) -> bool:
        """Return whether a model lost more than a point, and by so many standard errors."""
        return self.more_than_a_point and not self.after - self.before <= errors * self.error

    def __str__(self) -> str:
        if self.classes:
            change = f"accuracy went from {1 - self.before:.3f} to {1 - self.after:.3f}"
        else:
            change = f"the mean error went from {self.before:.3g} to {self.after:.3g}"
        rows = f"on {self.count} validation rows of what stays {change}"
        return rows + ("" if self.beyond(2) else ", which may be chance with so few rows")


def utility_loss(
    model: nn.Module,
    original: nn.Module,
    case: Case,
    split: Partition,
    request: ForgetRequest | None,
    rt: Runtime,
) -> UtilityLoss | None:
    """Return what a model lost on validation rows; None where no labelled ones are there.

    Rows of removed classes, and of a removed range of targets, are left out. Both models are read
    in eval mode, on the meter of ``rt``. The fit of retained rows plays no part: where their labels
    are noisy a lower fit is no loss.
    """
    view = kept_validation(case, split, request)
    if view is None:
        return None
    some = view.sample(ROWS, rt, "utility/rows")
    with seeded_global_rngs(rt, "utility"):
        before, after = (_errors(m, some, case.task, rt) for m in (original, model))
    real = predicts_numbers(case.task, some.y)
    unit = float(some.y.double().std(0).mean()) if real and len(some) > 1 else 1.0
    apart = after - before
    error = float(apart.std()) / math.sqrt(len(some)) if len(some) > 1 else math.inf
    return UtilityLoss(
        float(before.mean()), float(after.mean()), len(some), unit or 1.0, error, classes=not real
    )


def kept_validation(case: Case, split: Partition, request: ForgetRequest | None) -> View | None:
    """Return the labelled validation rows of what stays; None where there are none."""
    if case.validation is None or not len(case.validation):
        return None
    view = View.all(split.as_used(case.validation))
    if not view.labelled:
        return None
    gone = rows_of_removed_classes(view, split.removed_classes)
    if isinstance(request, Targets):
        gone = in_range(request, view.y)
    kept = view.pick(~gone.cpu())
    return kept if len(kept) else None


def _errors(model: nn.Module, view: View, task: Task, rt: Runtime) -> Tensor:
    out = predict(model, view, task, rt)
    return task.errors(out, Batch.of_targets(view.y, view.rows)).double()
