"""How parameters are moved."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from unlearnkit.core.checked import Checked
from unlearnkit.core.content import NoDigestError, strict_digest
from unlearnkit.core.data import Sampler
from unlearnkit.core.errors import InputError
from unlearnkit.core.search_space import SearchRange

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""From a batch's inputs and a generator to new inputs."""

LATER = (
    *("step_epochs", "step_factor", "warmup_epochs", "clip_norm"),
    *("label_smoothing", "class_weights", "sampler"),
)
"""Fields that a dump shows only where they are set: what was kept before them keeps its address."""

FUNCTIONS = ("sampler", "augment")


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

    schedule: Literal["constant", "cosine", "linear", "step"] = "constant"
    """Learning rate over the run: constant; a cosine or a line to zero, stepped by batch; or
    multiplied by ``step_factor`` every ``step_epochs`` epochs."""

    step_epochs: int = Field(10, ge=1)
    """Epochs between two steps of the schedule ``step`` (``step_size`` of torch's ``StepLR``)."""

    step_factor: float = Field(0.1, gt=0, le=1)
    """Factor of a step (``gamma`` of torch's ``StepLR``)."""

    warmup_epochs: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Epochs over which the rate first grows linearly, batch by batch, to ``lr``; the schedule
    then runs over the rest."""

    clip_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest norm of the gradient of all parameters; no limit when None."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a target that is spread over all classes. Of trainings from scratch, like the next
    two: methods descend on the task's own loss, in shuffled order."""

    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss, as ``CrossEntropyLoss(weight=...)`` takes them: a batch's
    loss is a weighted mean. All 1 when empty."""

    sampler: Literal["shuffle", "balanced"] | SkipJsonSchema[Sampler] = "shuffle"
    """Rows of an epoch: all in a new order; as many, drawn with replacement, each class as often;
    or what a function of their targets ``(n, ...)`` and a generator returns: n positions."""

    epochs: int = Field(1, ge=0)
    """Passes over the rows. 0 moves nothing, as a setting of a method; a case's recipe, by which
    models are trained from scratch, needs at least 1."""

    batch_size: int = Field(64, ge=1)
    """Rows in a step."""

    augment: Literal["none", "flip_crop"] | SkipJsonSchema[Augmentation] = "none"
    """Input transform at each step: none; mirror and shift by 4 pixels (images only); or a function
    of a batch's inputs ``(B, ...)`` and a generator that returns new inputs."""

    remedy: ClassVar[str] = "for a training that no Recipe describes, give Case(train_model=fn)"

    @model_serializer(mode="wrap")
    def _dump(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields; later ones only where they are set, functions by name and content."""
        functions = {n: f for n in FUNCTIONS if callable(f := getattr(self, n))}
        defaults = {n: f.default for n, f in type(self).model_fields.items()}
        stand_in = self.model_copy(update={n: defaults[n] for n in functions})
        held: dict[str, Any] = plain(stand_in if functions else self)
        for name in LATER:
            if getattr(self, name) == defaults[name]:
                held.pop(name, None)
        return held | {n: _named(f) for n, f in functions.items()}

    def check_cached(self) -> None:
        """Refuse a function whose content cannot be known: what it trains cannot be kept.

        Raises:
            InputError: Naming the function and what it reads.
        """
        for name in FUNCTIONS:
            if callable(given := getattr(self, name)):
                try:
                    strict_digest(given)
                except NoDigestError as e:
                    raise InputError(
                        f"recipe: what {name} trains cannot be cached, because it reads {e}; take"
                        " its random numbers from the generator that it is given, or give"
                        " Case(train_model=fn, version='1')"
                    ) from None

    def build(self, params: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimiser over these parameters."""
        if self.optimizer == "adam":
            return torch.optim.Adam(params, lr=self.lr, weight_decay=self.weight_decay)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(params, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            params, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def factor(self, step: float, steps: int) -> float:
        """Return the multiple of ``lr`` at a step, 0-based, of a run of ``steps``.

        A place between two steps is one of a schedule by epochs, where these differ in length.
        """
        epoch = steps / max(self.epochs, 1)
        warm = min(self.warmup_epochs * epoch, steps)
        if step < warm:
            return min((step + 1) / warm, 1.0)
        step, steps = step - math.ceil(warm), steps - math.ceil(warm)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return self.step_factor ** int((step + 1e-9) / (epoch * self.step_epochs))
        if self.schedule == "linear":
            return 1.0 - step / max(steps, 1)
        return 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def _named(function: object) -> dict[str, str]:
    """Return a function by name and, as far as it can be read, by content."""
    try:
        content = strict_digest(function)
    except NoDigestError:
        content = "unknown"
    return {"function": getattr(function, "__qualname__", repr(type(function))), "content": content}


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
            "warmup_epochs": 0.0,
        }
        return own.model_copy(update=change)

    @classmethod
    def exact(cls, **settings: object) -> Self:
        """Return a run given in absolute units, as papers print them."""
        return cls(recipe=Recipe.model_validate(settings))
