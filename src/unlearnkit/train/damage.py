"""Damage: whether a model serves the retain set worse than a constant answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.module_state import largest_magnitude, tensors
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.early_stopping import rows_of_removed_classes
from unlearnkit.train.features import row_losses
from unlearnkit.train.rng_guard import seeded_global_rngs

MOST_ROWS = 512
"""Most rows that are checked."""

DIVERGED = 2.0
"""Loss, as a multiple of a constant answer's and of the original's, whichever is larger, from which
a model is not merely empty but wrong."""


@dataclass(frozen=True)
class Damage:
    """A model whose loss is above that of a constant answer, and above the original's."""

    rows: str
    """Which rows were checked: ``retained`` or ``test``."""

    count: int
    loss: float
    constant: float
    """Loss of a model without knowledge."""

    before: float
    """Loss of the original."""

    largest: str
    """Name of the tensor with the largest value."""

    size: float
    """That value, without its sign."""

    @property
    def diverged(self) -> bool:
        """Return whether the retained loss is far above that of a constant answer."""
        worst = max(self.constant, self.before)
        return self.rows == "retained" and not self.loss <= DIVERGED * worst

    def __str__(self) -> str:
        return (
            f"the mean loss on {self.count} {self.rows} rows is {self.loss:.3g}, above"
            f" {self.constant:.3g}, that of a constant answer (the original: {self.before:.3g});"
            f" largest value {self.size:.3g} in {self.largest}"
        )


def damage(
    model: nn.Module, original: nn.Module, case: Case, split: Partition, rt: Runtime
) -> Damage | None:
    """Return how a model is worse than a constant answer and than the original; None if it is not.

    Measured in eval mode, off the caller's meter, on a sample of the retain set, or on test rows of
    the remaining classes where there is none.
    """
    looked = _rows(case, split)
    if looked is None:
        return None
    name, view = looked
    own = rt.fork(rt.seed)
    with seeded_global_rngs(own, "damage"):
        some = view.sample(MOST_ROWS, own, "damage/rows")
        constant = case.task.never_seen
        loss = _mean(model, some, case.task, own)
        if loss <= constant:
            return None
        before = _mean(original, some, case.task, own)
    if loss <= before:
        return None
    sizes = {n: largest_magnitude(t) for n, t in tensors(model).items() if t.numel()}
    largest = max(sizes, key=lambda n: sizes[n])
    return Damage(name, len(some), loss, constant, before, largest, sizes[largest])


def can_see_damage(case: Case, split: Partition) -> bool:
    """Return whether there are rows to check for damage."""
    return _rows(case, split) is not None


def _rows(case: Case, split: Partition) -> tuple[str, View] | None:
    retain = split.retain
    if retain is not None and len(retain) and retain.labelled:
        return "retained", retain
    if case.test is None or not len(case.test):
        return None
    test = View.all(case.test)
    if not test.labelled:
        return None
    kept = test.pick(~rows_of_removed_classes(test, split.removed_classes))
    return ("test", kept) if len(kept) else None


def _mean(model: nn.Module, view: View, task: Task, rt: Runtime) -> float:
    return row_losses(model, view, task, rt).double().mean().item()
