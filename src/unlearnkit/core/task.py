"""The contract of a task: what outputs and targets mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from unlearnkit.core.errors import UnknownNameError, UnlearnkitError

if TYPE_CHECKING:
    from unlearnkit.core.data import Batch, Data


class Task(Protocol):
    """All that a method or a metric may ask about outputs and targets.

    ``B`` rows, ``K`` outputs a row. Every answer is per row: means are the caller's. A task may
    also have ``check_model(model, view, rt)``, which refuses a model that does not fit, and
    ``remarks(forget, retain)``, sentences on the rows that a run notes.
    """

    name: str
    """Its id: ``classification``, ``multilabel``, ``regression``."""

    @property
    def never_seen(self) -> float:
        """Return the loss that a model without any knowledge has, in the unit of ``losses``."""
        ...

    @classmethod
    def infer(cls, data: Data) -> Task:
        """Build the task that fits these targets."""
        ...

    def spec(self) -> Mapping[str, Any]:
        """Return what defines the task, as JSON-able settings, its name included."""
        ...

    def targets(self, y: Tensor) -> Tensor:
        """Return targets in the form that the task computes with, or raise if they are not."""
        ...

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Run the model: ``(B, K)``."""
        ...

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the training loss of each row: ``(B,)``."""
        ...

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return how far outputs are from target outputs, per row ``(B,)``; 0 when equal."""
        ...

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return how surely each row's own target is met, ``(B,)``; larger is surer."""
        ...

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Return the batch with targets that are wrong on purpose.

        ``avoid`` names targets (classes) that must not be drawn either.
        """
        ...

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the error that a person would quote, per row: ``(B,)``."""
        ...

    def log_probs(self, out: Tensor) -> Tensor | None:
        """Return log-probabilities ``(B, C)`` of exclusive outcomes, or None if there are none."""
        ...

    def predictions(self, out: Tensor) -> Tensor | None:
        """Return predicted targets ``(B, K)``, in target units; None if they are no numbers."""
        ...


T = TypeVar("T", bound=type)
TASKS: dict[str, Any] = {}


def register_task(cls: T) -> T:
    """Return the task after it was put on the list, under its ``name``.

    Raises:
        UnlearnkitError: If the name is taken.
    """
    if TASKS.setdefault(cls.name, cls) is not cls:  # type: ignore[attr-defined]  # checked by use
        raise UnlearnkitError(f"two tasks are called {cls.name!r}")  # type: ignore[attr-defined]
    return cls


def predicts_numbers(task: Task, y: Tensor) -> bool:
    """Return whether a task's targets are numbers.

    Args:
        task: The task.
        y: Targets of some rows ``(N, ...)``; their values are not read.
    """
    return task.predictions(y[:0, None].flatten(1)) is not None


def task_named(name: str, data: Data) -> Task:
    """Return the task of this name, fitted to the targets of some data.

    Raises:
        UnknownNameError: If there is no such task.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    task: Task = TASKS[name].infer(data)
    return task
