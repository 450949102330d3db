"""The contract of a method, and the list of all methods."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ValidationError, model_validator

from unlearnkit.core.checked import Checked
from unlearnkit.core.errors import (
    InputError,
    UndeclaredReadError,
    UnknownNameError,
    UnlearnkitError,
)
from unlearnkit.core.settings import deep_merge
from unlearnkit.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from unlearnkit.core.data import View
    from unlearnkit.core.recipe import Recipe
    from unlearnkit.core.runtime import Runtime
    from unlearnkit.core.task import Task
    from unlearnkit.core.training import Training
    from unlearnkit.core.training_summary import TrainingSummary


class Need(StrEnum):
    """An input that a method may read; reading an undeclared one raises."""

    FORGET = "forget"
    """The forget set."""

    RETAIN = "retain"
    """The retain set."""

    VALIDATION = "validation"
    """Rows that were never trained on and that no metric reads: for stop rules."""

    LABELS = "labels"
    """The targets of the rows that it reads: without them it sees inputs alone."""

    FRESH = "fresh"
    """A function that builds an untrained model."""

    CLASSES = "whole classes"
    """A request for whole classes: no retained row has a class of the forget set."""

    MOMENTS = "input moments"
    """Second moments of layer inputs, measured on the training rows and kept (``InputMoments``)."""

    CORRECTED = "corrected rows"
    """The forget rows with right features or labels; a request for features or labels has them."""

    CLIENTS = "rows with owners"
    """Rows that belong to clients: the owner of each (``group``), as in a federated training."""

    HISTORY = "update history"
    """What clients sent in each round of a federated training, as it was kept."""

    CHECKPOINTS = "training checkpoints"
    """The states that a training went through, as they were kept."""

    SHAPE = "one input tensor"
    """Inputs that are one tensor, of a known shape."""


@dataclass(frozen=True)
class Problem:
    """Everything a method may read. ``model`` is its own copy to change."""

    model: nn.Module
    """The method's own copy of the trained model."""

    original: nn.Module
    """The trained model, frozen, in eval mode."""

    task: Task
    forget: View
    retain: View
    validation: View | None
    """Never-trained rows to calibrate on; None where the case has none."""

    recipe: Recipe
    """How the model was trained. Where that is unknown ``ASSUMED``, with an estimated learning rate
    where models are trained by the user's own loop."""

    removed_classes: tuple[int, ...] = ()
    """Classes without a retained row: all of their rows are to be forgotten."""

    input_shape: tuple[int, ...] | None = None
    """Shape of one row's input, such as ``(3, 32, 32)``; None where inputs are no single tensor of
    one shape. Known without any data."""

    moments: TrainingSummary | None = None
    """Input moments of all training rows; None where none were kept or the method reads none."""

    build: Callable[[], nn.Module] | None = None
    sealed_build: str = ""
    find_recipe: Callable[[], Recipe] | None = None
    """Finds ``recipe`` when it is first read, in the place of the one that is given."""

    train: Callable[[nn.Module, View], None] | None = None
    """Trains an untrained model by the user's own loop; None where the recipe does."""

    training: Training | None = None
    """How models are trained from scratch: the user's own loop, or the recipe. For methods that
    train models from seeds of their own; None where ``recipe`` says it."""

    build_from: Callable[[int], nn.Module] | None = None
    """Builds an untrained model from a seed of its own."""

    corrections: View | None = None
    """The forget rows as they should have been, in the same order; part of ``retain``. None where
    rows are to be forgotten altogether."""

    def __post_init__(self) -> None:
        if self.find_recipe is not None:
            object.__delattr__(self, "recipe")

    def __getattr__(self, name: str) -> Recipe:
        if name != "recipe" or self.find_recipe is None:
            raise AttributeError(name)
        object.__setattr__(self, "recipe", self.find_recipe())
        return self.recipe

    def fresh(self, seed: int | None = None) -> nn.Module:
        """Return an untrained model of the same architecture.

        Args:
            seed: What it is initialised from; the run's seed when None, so that all are alike.

        Returns:
            The model.

        Raises:
            UndeclaredReadError: If the method does not declare that it needs one.
        """
        if self.sealed_build or self.build is None:
            raise UndeclaredReadError(self.sealed_build or "the case gives no fresh model")
        if seed is None:
            return self.build()
        if self.build_from is None:
            raise UndeclaredReadError("fresh: this problem builds models from the run's seed alone")
        return self.build_from(seed)


@dataclass(frozen=True)
class Info:
    """Facts about a method that people and tools read without running it."""

    title: str
    """Its name in the literature."""

    cite: str
    """Authors, venue, year, arXiv id."""

    needs: frozenset[Need]
    """Inputs without which it cannot run."""

    tasks: frozenset[str]
    """Tasks that it serves."""

    needs_one_of: frozenset[Need] = frozenset()
    """Inputs of which at least one must be there, whichever it is."""

    uses: frozenset[Need] = frozenset()
    """Inputs that it reads if the case has them."""

    rebuilds: bool = False
    """Whether it returns a model built by ``Problem.fresh``, which may be of another architecture
    than the original: a student trained from scratch."""

    replaces: bool = False
    """Whether it returns another model than it was given; a mask cannot hold that."""

    wraps: bool = False
    """Whether it returns a model around the one it was given, with weights of more than one."""

    gradient_steps: bool = True
    """Whether it moves weights by steps along gradients. False where they are computed at once: a
    projection of gradients then has nothing to change."""

    may_damage: bool = False
    """Whether a diverged model is a known outcome at published settings: one whose loss on the
    retain set is above twice that of a constant answer comes with a note then. Other methods that
    need retained rows end in a ``DivergedError``."""

    when: str = ""
    """When to use it and when not, in a sentence or two."""

    differs: tuple[str, ...] = ()
    """Every deviation from paper or reference code, with the reason."""

    fails: tuple[str, ...] = ()
    """Known failures, with evidence."""

    exact: tuple[str, ...] = ()
    """What it rests on that the result is a model trained without the forget set; empty for methods
    whose result is only near one."""

    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Named settings: ``paper`` as published, ``reference`` as its code where that differs."""

    smoke: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which it runs in under a second on a toy problem and moves weights."""

    @property
    def reads(self) -> frozenset[Need]:
        """Return all inputs that it may read."""
        return self.needs | self.needs_one_of | self.uses


class Method(Checked):
    """A method with its hyper-parameters: immutable, comparable, JSON-able."""

    id: ClassVar[str]
    info: ClassVar[Info]

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill what a group of hyper-parameters leaves open from this method's own default."""
        if not isinstance(given, Mapping):
            return given
        return {
            name: deep_merge(cls.model_fields[name].default, value)
            if name in cls.model_fields
            else value
            for name, value in given.items()
        }

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Change ``p.model`` so that it has forgotten ``p.forget`` and return it."""
        raise NotImplementedError

    @classmethod
    def build(cls, preset: str | None = None, /, **params: Any) -> Self:
        """Return the method with these hyper-parameters, on top of a preset's or the defaults.

        Args:
            preset: One of ``info.presets``; the defaults when None.
            **params: Hyper-parameters by name.

        Returns:
            The method.

        Raises:
            UnknownNameError: If there is no such preset or hyper-parameter.
            InputError: If a value is out of bounds.
        """
        if preset is not None and preset not in cls.info.presets:
            raise UnknownNameError(f"preset of {cls.id}", preset, cls.info.presets)
        base = cls.info.presets[preset] if preset is not None else {}
        wrong = next((name for name in params if name not in cls.model_fields), None)
        if wrong is not None:
            inner = [x for x in dotted_names(cls) if x.endswith(f".{wrong}")]
            if inner:
                raise InputError(
                    f"no hyper-parameter of {cls.id} {wrong!r}; it is part of another:"
                    f" {', '.join(inner)}. See: unlearnkit show {cls.id}"
                )
            raise UnknownNameError(f"hyper-parameter of {cls.id}", wrong, cls.model_fields)
        try:
            start = {k: deep_merge(cls.model_fields[k].default, v) for k, v in base.items()}
            return cls.model_validate(deep_merge(start, params))
        except ValidationError as e:
            raise InputError(
                f"{cls.id}: {format_validation_error(e, cls)}. See: unlearnkit show {cls.id}"
            ) from None


class Recalibrated(Method):
    """A method that reads retained rows: the driver fits batch normalisation to its weights."""

    batch_norm: Literal["recalibrate", "keep"] = "recalibrate"
    """Running statistics of batch normalisation at the end: measured on retained rows under the
    new weights, or as the run leaves them (as published). Frozen layers keep theirs."""


_SHOWN = 5
"""Most wrong settings that an error names."""


def format_validation_error(e: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """Return what is wrong with settings in one line: which, why, what came.

    Args:
        e: The error.
        kind: The model that refused them, which knows what its fields are called.

    Returns:
        The text; a name that the model does not have comes with the nearest.
    """
    return "; ".join(
        _no_such(x["loc"], kind)
        if x["type"] == "extra_forbidden"
        else f"{_place(x['loc'])}: {x['msg'][0].lower() + x['msg'][1:]}, got {_short(x['input'])}"
        for x in e.errors(include_url=False)[:_SHOWN]
    )


def _no_such(loc: tuple[int | str, ...], kind: type[BaseModel] | None) -> str:
    """Return that a setting has no such name, and the nearest one that it has."""
    place, name = _place(loc[:-1]), one_line(str(loc[-1]), 80)
    known = dotted_names(kind) if kind is not None else []
    near = difflib.get_close_matches(".".join(filter(None, (place, name))), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{place}: no setting {name!r}{hint}" if place else f"no setting {name!r}{hint}"


def dotted_names(kind: type[BaseModel]) -> list[str]:
    """Return the names of all settings of a model; a dot nests, as in ``run.lr``."""
    found = []
    for name, f in kind.model_fields.items():
        found.append(name)
        for inner in (f.annotation, *get_args(f.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += [f"{name}.{x}" for x in dotted_names(inner)]
    return found


def _short(given: object) -> str:
    return one_line(repr(given), 120)


def _place(loc: tuple[int | str, ...]) -> str:
    """Return where a setting stands, without the marks that say which alternative was tried."""
    return ".".join(str(part) for part in loc if not set(str(part)) & set("-[]()"))


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=Method)


def register(cls: type[M]) -> type[M]:
    """Return the method after it was put on the list, under its module's name.

    Raises:
        UnlearnkitError: If a hyper-parameter is not described, or the id is taken.
    """
    cls.id = cls.__module__.rpartition(".")[2]
    for name, f in cls.model_fields.items():
        if not f.description:
            raise UnlearnkitError(f"{cls.id}.{name}: describe the hyper-parameter in a docstring")
    held = METHODS.get(cls.id)
    if held is not None and (held.__module__, held.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise UnlearnkitError(f"two methods are called {cls.id!r}")
    METHODS[cls.id] = cls
    return cls
