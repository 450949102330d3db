"""How parameters are moved."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.core.checked import Checked
from unlearnkit.core.search_space import SearchRange


class Recipe(Checked):
    """How parameters are moved: optimiser, step size, length, batch size."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Which update rule."""

    lr: float = Field(1e-2, gt=0, allow_inf_nan=False)
    """Peak learning rate."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD; the others ignore it."""

    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight decay: L2 for SGD and Adam, decoupled for AdamW."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: constant, or a cosine to zero, stepped by batch."""

    epochs: int = Field(1, ge=0)
    """Passes over the rows. 0 moves nothing, as a setting of a method; a case's recipe, by which
    models are trained from scratch, needs at least 1."""

    batch_size: int = Field(64, ge=1)
    """Rows in a step."""

    augment: Literal["none", "flip_crop"] = "none"
    """Input transform at each step: none, or mirror and shift by 4 pixels (images only)."""

    def build(self, params: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimiser over these parameters."""
        if self.optimizer == "adam":
            return torch.optim.Adam(params, lr=self.lr, weight_decay=self.weight_decay)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(params, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def factor(self, step: int, steps: int) -> float:
        """Return the multiple of ``lr`` at a step, 0-based, of a run of ``steps``."""
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


ASSUMED = Recipe(lr=0.01, momentum=0.9, epochs=20, batch_size=64)
"""Stands in where the model's own recipe is unknown; methods say so when they use it."""


class FineTuneSchedule(Checked):
    """A short run, in units of the recipe that trained the model."""

    kind: Literal["tuning"] = "tuning"
    """Train on as usual."""

    lr: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(1.0, ge=0, allow_inf_nan=False)
    """Peak learning rate, as a multiple of the recipe's; 0 moves nothing."""

    share: Annotated[float, SearchRange(0.005, 0.25)] = Field(0.1, ge=0, le=10)
    """Length, as a share of the recipe's epochs; rounded up to whole epochs unless 0."""

    decay: float = Field(1.0, ge=0)
    """Weight decay, as a multiple of the recipe's."""

    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate over the run."""

    recipe: Recipe | None = None
    """When given, used as it is in place of all of the above."""

    def resolve(self, own: Recipe) -> Recipe | None:
        """Return the run's recipe given the model's own; None when it would move nothing."""
        if self.recipe is not None:
            return self.recipe if self.recipe.epochs else None
        epochs = math.ceil(self.share * own.epochs - 1e-9)
        if epochs == 0 or self.lr == 0:
            return None
        change = {
            "lr": own.lr * self.lr,
            "epochs": epochs,
            "weight_decay": own.weight_decay * self.decay,
            "schedule": self.schedule,
        }
        return own.model_copy(update=change)

    @classmethod
    def exact(cls, **settings: object) -> Self:
        """Return a run given in absolute units, as papers print them."""
        return cls(recipe=Recipe.model_validate(settings))
