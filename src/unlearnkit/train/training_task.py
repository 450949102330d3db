"""The loss and the rows of a training from scratch, as a recipe says."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import Batch, Sampler
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.task import Task


class TrainingLoss(Protocol):
    """What a step needs of a task."""

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what a model says about a batch ``(B, ...)``."""
        ...

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return one number a row ``(B,)``; a step minimises their mean."""
        ...


class WeightedCrossEntropy:
    """A classification whose loss is smoothed and weighted by class."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        """Take the task and the recipe."""
        self._task, self._smooth = task, recipe.label_smoothing
        self._weight = torch.tensor(recipe.class_weights) if recipe.class_weights else None

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return logits ``(B, C)``."""
        return self._task.outputs(model, batch)

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return what each row adds to the batch's loss ``(B,)``, in nats.

        Their mean is what ``torch.nn.CrossEntropyLoss(weight, label_smoothing)`` returns.
        """
        weight = None if self._weight is None else self._weight.to(out)
        losses = functional.cross_entropy(
            out, batch.y, weight, reduction="none", label_smoothing=self._smooth
        )
        return losses if weight is None else losses / weight[batch.y].mean()


def training_task(task: Task, recipe: Recipe) -> TrainingLoss:
    """Return the task as a training by a recipe sees it: itself, where the loss is its own.

    Args:
        task: Of the case.
        recipe: How models are trained.

    Returns:
        What gives outputs and losses.

    Raises:
        InputError: If the recipe's loss is for another task, or has other classes.
    """
    if not recipe.label_smoothing and not recipe.class_weights:
        return task
    classes = task.spec().get("classes") if task.name == "classification" else None
    if classes is None:
        raise InputError(
            f"recipe: label_smoothing and class_weights are for a classification, not {task.name};"
            " give Case(train_model=fn) for another loss"
        )
    count = len(recipe.class_weights)
    if count not in (0, classes) or not all(0 <= w < float("inf") for w in recipe.class_weights):
        raise InputError(
            f"recipe: class_weights: give one finite number from 0 up a class ({classes}), got"
            f" {count}: {recipe.class_weights!r}"
        )
    return WeightedCrossEntropy(task, recipe)


def epoch_sampler(recipe: Recipe) -> Sampler | None:
    """Return how a training by a recipe draws the rows of an epoch; None for each row once."""
    if recipe.sampler == "balanced":
        return draw_balanced
    return None if isinstance(recipe.sampler, str) else recipe.sampler


def draw_balanced(y: Tensor, rng: torch.Generator) -> Tensor:
    """Draw as many rows as there are, with replacement, each class with the same probability.

    Args:
        y: Classes ``(n,)``.
        rng: Draws.

    Returns:
        Positions ``(n,)``.

    Raises:
        InputError: If targets are not classes.
    """
    if y.ndim != 1 or y.is_floating_point():
        raise InputError(
            "recipe: sampler 'balanced' needs one class a row; give a function instead"
        )
    counts = torch.bincount(y.cpu())
    return torch.multinomial(1.0 / counts[y.cpu()], len(y), replacement=True, generator=rng)
