"""Mask specification: how a mask is written in CLI, studies and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError

from unlearnkit.core.checked import Checked
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.method import format_validation_error
from unlearnkit.core.search_space import Categorical, SearchRange

Accumulate = Literal["sum", "absolute"]
Criterion = Literal[
    "weighted_grad",
    "grad",
    "weight",
    "weighted_grad_all",
    "critical_memory",
    "deepest",
    "shallowest",
    "random",
]
Granularity = Literal["parameter", "channel", "head"]


class MaskSpec(Checked):
    """How to choose the scalars of a model that may move, as it is written."""

    budget: Annotated[float, SearchRange(0.01, 1, log=True)] = Field(0.3, gt=0, le=1)
    """Largest share of the trainable scalars that is chosen (paper: alpha)."""

    criterion: Annotated[Criterion, Categorical(("weighted_grad", "grad", "weight", "random"))] = (
        "weighted_grad"
    )
    """What makes a scalar count: its value times the gradient of the forget rows' loss (DEL), the
    gradient alone (SalUn), its value alone, the first with all training rows, how many forget rows
    hang on its unit (critical memory), a late or an early layer, or chance."""

    granularity: Annotated[Granularity, Categorical(("parameter", "channel"))] = "channel"
    """What is chosen whole: a scalar; an output channel of a layer with its bias and normalisation,
    or a row of an embedding; or that and attention heads."""

    top: float = Field(0.1, gt=0, le=1)
    """Share of a unit's scalars, the largest, whose mean is its score; 1 is the plain mean."""

    accumulate: Accumulate = "sum"
    """How batches' gradients add up: with their signs, so that opposite ones cancel (paper), or
    without."""

    batch_size: int = Field(128, ge=1)
    """Rows in a batch; at 1, without signs, every row counts by itself."""

    @classmethod
    def read(cls, given: str | Mapping[str, Any]) -> Self:
        """Return what a user wrote.

        Args:
            given: ``criterion``, ``criterion:budget`` or ``criterion:budget:granularity``, such as
                ``weighted_grad:0.3``; or fields by name.

        Returns:
            How to choose.

        Raises:
            UnknownNameError: If a criterion, granularity or field is unknown.
            InputError: If the budget is no fraction, or there are too many parts.
        """
        fields = dict(given) if isinstance(given, Mapping) else _fields(given)
        wrong = next((k for k in fields if k not in cls.model_fields), None)
        if wrong is not None:
            raise UnknownNameError("field of a mask", str(wrong), cls.model_fields)
        for name, kind in (("criterion", Criterion), ("granularity", Granularity)):
            if fields.get(name, get_args(kind)[0]) not in get_args(kind):
                raise UnknownNameError(f"{name} of a mask", str(fields[name]), get_args(kind))
        try:
            return cls.model_validate(fields)
        except ValidationError as e:
            raise InputError(f"mask: {format_validation_error(e)}") from None

    @property
    def words(self) -> str:
        """Return it in a few words; what is as by default goes without saying."""
        own = type(self).model_fields
        said = [self.criterion, f"{self.budget:g}"]
        said += [] if self.granularity == own["granularity"].default else [self.granularity]
        for name in ("top", "accumulate", "batch_size"):
            value = getattr(self, name)
            said += [] if value == own[name].default else [f"{name}={value}"]
        return " ".join(said)

    def by_chance(self) -> Self:
        """Return the random choice of the same budget."""
        return type(self)(budget=self.budget, criterion="random", granularity=self.granularity)


def _fields(words: str) -> dict[str, Any]:
    parts = words.split(":")
    if len(parts) > 3:
        raise InputError(
            f"mask: expected criterion:budget:granularity, such as weighted_grad:0.3:channel, got"
            f" {words!r}"
        )
    return dict(zip(("criterion", "budget", "granularity"), parts, strict=False))
