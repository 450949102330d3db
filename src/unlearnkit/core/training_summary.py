"""What is kept of the training rows after training, in place of the rows."""

from typing import Protocol

from torch import nn


class TrainingSummary(Protocol):
    """A summary of the training rows, such as ``InputMoments``."""

    rows: int
    """How many rows are in it."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the summary was not made with."""
        ...
