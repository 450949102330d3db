"""What a model's output means."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.errors import (
    InputError,
    OutOfMemoryError,
    UnknownNameError,
    UnlearnkitError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from unlearnkit.core.case import Case
    from unlearnkit.core.data import Batch, Data


class Task(Protocol):
    """All that a method or a metric may ask about outputs and targets.

    ``B`` rows, ``K`` outputs a row. Every answer is per row: means are the caller's.
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

    def toy(self, seed: int) -> Case:
        """Return a tiny problem of this kind that trains in a blink: for tests."""
        ...


T = TypeVar("T", bound=type)
TASKS: dict[str, Any] = {}


def register_task(cls: T) -> T:
    """Put a task on the list, under its ``name``.

    Args:
        cls: The task.

    Returns:
        The same class.

    Raises:
        UnlearnkitError: If the name is taken.
    """
    if TASKS.setdefault(cls.name, cls) is not cls:  # type: ignore[attr-defined]  # checked by use
        raise UnlearnkitError(f"two tasks are called {cls.name!r}")  # type: ignore[attr-defined]
    return cls


def task_named(name: str, data: Data) -> Task:
    """Return the task of this name, fitted to the targets of some data.

    Args:
        name: The task's id.
        data: Rows whose targets say the rest, such as how many classes there are.

    Returns:
        The task.

    Raises:
        UnknownNameError: If there is no such task.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    task: Task = TASKS[name].infer(data)
    return task


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Run a model on a batch and return its output tensor, at least float32.

    The one door to a model's outputs: it spreads dictionary inputs over arguments, casts inputs
    to the weights' precision, keeps normalisation layers still for a batch of one row, takes the
    logits out of structured outputs, and meters the rows.

    Args:
        model: Any module.
        batch: ``x`` a tensor, or a dict of tensors passed by name (by position if the names are
            numbers).

    Returns:
        The output ``(B, ...)``.

    Raises:
        UnsupportedError: If no tensor with one entry a row comes back. Inputs of a shape that the
            model does not take are refused with an ``InputError``.
    """
    out = _call(model, batch)
    rows = len(batch)
    if out.ndim == 0 or out.shape[0] != rows:
        raise UnsupportedError(
            f"the model returns shape {tuple(out.shape)} for {rows} rows; one entry a row is needed"
        )
    if out.dtype in {torch.float16, torch.bfloat16}:
        out = out.float()
    if batch.cost is not None:
        batch.cost.count_forward(rows, graph=out.requires_grad)
    return out


def _call(model: nn.Module, batch: Batch) -> Tensor:
    args, kwargs = _arguments(model, batch.x)
    try:
        with _still_norm(model) if model.training and len(batch) == 1 else nullcontext():
            return _tensor(model(*args, **kwargs))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except (RuntimeError, ValueError, TypeError) as e:
        told = _first_line(e)
        if "can't allocate memory" in told:
            raise OutOfMemoryError(
                f"out of memory while the model reads {len(batch)} rows, input shape"
                f" {_shape(batch.x)}; use a smaller batch_size in the recipe or the method, or"
                " another device"
            ) from e
        if "Cannot access data pointer" in told:
            told = (
                "its forward pass cannot be differentiated row by row, as where it packs sequences"
                " (pack_padded_sequence); use padded sequences, or a method without per-row"
                " gradients such as finetune"
            )
        raise InputError(
            f"the model does not take this input, shape {_shape(batch.x)}: {told}"
        ) from e


def _arguments(
    model: nn.Module, x: Tensor | Mapping[str, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)

    def fit(t: Tensor) -> Tensor:
        if weight is not None and t.is_floating_point() and t.dtype != weight.dtype:
            return t.to(weight.dtype)
        return t

    if isinstance(x, Tensor):
        return (fit(x),), {}
    if all(name.isdigit() for name in x):
        return tuple(fit(x[k]) for k in sorted(x, key=int)), {}
    takes = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if open_ended or set(x) <= set(takes):
        return (), {k: fit(t) for k, t in x.items()}
    return ({k: fit(t) for k, t in x.items()},), {}


def _tensor(out: Any) -> Tensor:
    if isinstance(out, Tensor):
        return out
    logits = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if logits is None and isinstance(out, tuple | list) and out:
        logits = out[0]
    if not isinstance(logits, Tensor):
        raise UnsupportedError(
            f"the model returns {type(out).__name__}; a tensor, a tuple that starts with one, or an"
            " object with .logits is needed"
        )
    return logits


@contextmanager
def _still_norm(model: nn.Module) -> Iterator[None]:
    moved = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    for m in moved:
        m.eval()
    try:
        yield
    finally:
        for m in moved:
            m.train()


def _shape(x: Tensor | Mapping[str, Tensor]) -> str:
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return "{" + ", ".join(f"{k}: {tuple(t.shape)}" for k, t in x.items()) + "}"


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
