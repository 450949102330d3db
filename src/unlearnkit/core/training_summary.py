"""What is kept of the training rows after training, in place of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

if TYPE_CHECKING:
    from unlearnkit.core.data import View
    from unlearnkit.core.runtime import Runtime
    from unlearnkit.core.task import Task


class TrainingSummary(Protocol):
    """A summary of the training rows, such as ``InputMoments``."""

    rows: int
    """How many rows are in it."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the summary was not made with."""
        ...

    def check_rows(self, rows: View) -> None:
        """Refuse training rows that the summary is not of."""
        ...

    def after_deletion(
        self,
        original: nn.Module,
        unlearned: nn.Module,
        forget: View,
        task: Task,
        rt: Runtime,
        *,
        stay: View | None = None,
    ) -> TrainingSummary:
        """Return the summary without some rows, for the model that an unlearning has left."""
        ...
