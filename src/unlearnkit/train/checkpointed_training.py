"""Checkpointed training: a recipe whose states are kept for `rewind`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, View
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.train_function import TrainingOfViews
from unlearnkit.train.checkpoint_history import (
    Checkpoint,
    CheckpointHistory,
    state_of,
    training_id,
)
from unlearnkit.train.loop import Pass, alternate
from unlearnkit.train.training_task import epoch_sampler, training_task


@dataclass(frozen=True)
class CheckpointedTraining(TrainingOfViews):
    """Training by a recipe on whichever rows stay, with a state kept every few epochs."""

    recipe: Recipe = field(kw_only=True)
    task: Task = field(kw_only=True)
    checkpoints: CheckpointHistory = field(kw_only=True, compare=False)
    """Where states are kept; they change no result."""

    def spec(self) -> dict[str, Any]:
        """Return what names the training in a content address."""
        self.recipe.check_cached()
        settings = self.recipe.model_dump(mode="json")
        return {"name": self.name, "content": digest(settings), "recipe": settings}

    @property
    def name(self) -> str:
        """Return the name of the training in messages."""
        return "checkpointed training"

    def train(self, model: nn.Module, view: View, rt: Runtime) -> None:
        """Train a model on some rows, in place."""
        name, kept = training_id(model, view.key(), rt.seed), self.checkpoints
        unread = torch.ones(len(view.data), dtype=torch.bool)

        def keep(epochs: int) -> bool:
            if epochs % kept.every == 0:
                kept.add(name, Checkpoint(epochs, state_of(model), unread.nonzero()[:, 0]))
            return False

        def note(batch: Batch) -> None:
            unread[batch.row.cpu()] = False

        keep(0)
        train_from(
            model, view, self.task, self.recipe, rt, on_batch=note,
            after_epoch=lambda epoch: keep(epoch + 1),
        )  # fmt: skip
        kept.end(name, model)


def with_checkpoints(case: Case, history: CheckpointHistory) -> Case:
    """Return a case whose originals and retrained models leave checkpoints, for ``rewind``.

    Models are trained by the case's own recipe, one by one; cached models are not trained, and
    leave none.

    Args:
        case: Rows, task, model factory, recipe.
        history: ``MemoryCheckpoints()`` or ``DiskCheckpoints(folder)``.

    Returns:
        The case.

    Raises:
        InputError: If the case has no recipe, or a training loop of its own.
    """
    if case.recipe is None or case.train_model is not None:
        raise InputError(
            "checkpoints: models must be trained by a recipe; give Case(recipe=...) without"
            " train_model, or keep states in your own loop"
        )
    how = CheckpointedTraining(recipe=case.recipe, task=case.task, checkpoints=history)
    return case.replace(train_model=how)


def kept_training(p: Problem, who: str) -> tuple[CheckpointedTraining, str]:
    """Return the training that led to a problem's model, and its name among the checkpoints.

    Args:
        p: The problem.
        who: The method's id, for messages.

    Returns:
        Both.

    Raises:
        UnsupportedError: If no checkpoints were kept.
        InputError: If they are another model's.
    """
    how = p.training
    if not isinstance(how, CheckpointedTraining):
        raise UnsupportedError(
            f"{who}: no checkpoints were kept; train by case = with_checkpoints(case,"
            " MemoryCheckpoints()) to keep them"
        )
    training = how.checkpoints.find(p.original)
    if training is None:
        raise InputError(
            f"{who}: the checkpoints are of no training that led to this model; give those of"
            " its own training, or train it again with uk.train_original(case, cache=...) in a"
            " new cache folder, because a cached model is not trained and leaves none"
        )
    return how, training


def train_from(
    model: nn.Module,
    view: View,
    task: Task,
    recipe: Recipe,
    rt: Runtime,
    *,
    done: int = 0,
    epochs: int | None = None,
    on_batch: Callable[[Batch], None] | None = None,
    after_epoch: Callable[[int], bool] | None = None,
) -> None:
    """Train by a recipe's loss, sampler and schedule, from a place in the schedule to its end.

    Args:
        model: Changed in place.
        view: Rows to train on.
        task: Outputs and losses.
        recipe: The whole training.
        rt: Device, randomness, cost.
        done: Epochs that are over.
        epochs: Epochs in which the rest of the schedule is gone through; as many as are left when
            None.
        on_batch: Is called with each batch.
        after_epoch: As in ``descend``.
    """
    seen, left = training_task(task, recipe), recipe.epochs - done
    length = left if epochs is None else epochs
    each = view.steps(recipe.batch_size)
    taken = 0

    def loss(batch: Batch) -> Tensor:
        if on_batch is not None:
            on_batch(batch)
        return seen.losses(seen.outputs(model, batch), batch)

    def before_step(optimizer: torch.optim.Optimizer) -> None:
        nonlocal taken
        place = done * each + taken * left / length
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.factor(place, recipe.epochs * each)
        taken += 1

    alternate(
        model,
        (Pass(view, loss, "checkpoints", sampler=epoch_sampler(recipe)),),
        recipe.model_copy(update={"epochs": length}),
        rt,
        before_step=before_step if done or length < left else None,
        after_epoch=after_epoch,
    )
