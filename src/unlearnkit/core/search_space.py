"""Where tuning looks for a hyper-parameter: declared on the field itself.

``balance: Annotated[float, Search(0.01, 0.5, log=True)] = Field(0.1, ge=0, le=1)``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class SearchRange:
    """Numbers between two ends, both included; whole numbers where the default is one."""

    low: float
    high: float
    log: bool = False
    """Whether factors count rather than differences."""

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def holds(self, value: object) -> bool:
        """Return whether a value is a number of the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def ends(self) -> tuple[object, ...]:
        """Return the values that stand for all: if the method takes them, it takes the rest."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Categorical:
    """One of a few values."""

    values: tuple[str | int | float | bool, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))

    def holds(self, value: object) -> bool:
        """Return whether a value is among them."""
        return value in self.values

    @property
    def ends(self) -> tuple[object, ...]:
        """Return all of them."""
        return self.values


@dataclass(frozen=True)
class SearchDimension:
    """One hyper-parameter that is searched."""

    search: SearchRange | Categorical
    default: object
    """The method's own."""

    @property
    def whole(self) -> bool:
        """Return whether only whole numbers are allowed."""
        return isinstance(self.default, int)


def search_space(settings: type[BaseModel]) -> Mapping[str, SearchDimension]:
    """Return the searched fields of a method by dotted name, such as ``run.lr``.

    These declare a range, in the method or in a group of settings; of alternatives given by
    ``kind``, those of the default.
    """
    return dict(_dimensions(settings, None, ""))


def _dimensions(
    kind: type[BaseModel], given: BaseModel | None, before: str
) -> Iterator[tuple[str, SearchDimension]]:
    for name, f in kind.model_fields.items():
        default = f.default if given is None else getattr(given, name)
        declared = next((m for m in f.metadata if isinstance(m, SearchRange | Categorical)), None)
        if declared is not None:
            yield before + name, SearchDimension(declared, default)
        elif isinstance(default, BaseModel):
            yield from _dimensions(type(default), default, f"{before}{name}.")
