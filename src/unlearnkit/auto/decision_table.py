"""The decision table: which methods to try for which kind of request."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from unlearnkit.catalog import methods
from unlearnkit.core.bounded_yaml import parse_yaml
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.files import read_text
from unlearnkit.core.method import Need

Kind = Literal["class", "atypical", "group", "random", "unknown"]
"""What a request is: whole classes; rows that fit the model worse than retained rows,
as wrong labels do; whole owners; other rows; or unknown."""

PATH = Path(__file__).with_name("table.yaml")


class Candidate(FrozenModel):
    """A method to try, with its settings."""

    method: str
    """Its id; one that no installed package provides is passed over, with a warning at loading."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters that differ from its defaults."""

    cost: float = Field(gt=0)
    """What it is expected to cost, as a share of retraining; measured, rounded up."""

    exact: bool = False
    """Whether its model never saw the forget rows: then what the audit says is about the rows."""

    @property
    def whole(self) -> bool:
        """Return whether it is retraining in full, which is right by definition."""
        return self.exact and self.cost >= 1

    def words(self) -> str:
        """Return the method with its settings, as a user would write them."""
        return " ".join([self.method, *(f"{k}={v}" for k, v in _flat(self.settings))])


class Condition(FrozenModel):
    """A condition on a case; fields that are not given hold for any."""

    has: frozenset[Need] = frozenset()
    """Rows that must be there."""

    lacks: frozenset[Need] = frozenset()
    """Rows that must not be there."""

    tasks: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    least: float = Field(0.0, ge=0, le=1)
    """Smallest share of the training rows that the request names."""

    most: float = Field(1.0, ge=0, le=1)
    """Largest share."""

    layers: int | None = Field(None, ge=1)
    """Most weight matrices that the model may have, one behind the other or not; None for any."""

    batch_norm: bool | None = None
    """Whether the model has batch normalisation; None for any."""


class Rule(FrozenModel):
    """One line of the table."""

    id: str
    when: Condition = Condition()
    because: str
    """The condition in words, to be read after "because"."""

    candidates: tuple[Candidate, ...] = Field(min_length=1)
    """In the order in which they are tried."""

    evidence: str
    """The results that the order rests on, or that it rests on none."""


def check_methods(lines: Iterable[Rule], known: Collection[str]) -> None:
    """Warn of methods that no installed package provides: they would be passed over."""
    for line in lines:
        for c in line.candidates:
            if c.method not in known:
                near = difflib.get_close_matches(c.method, sorted(known), 1)
                hint = f"did you mean {near[0]!r}?" if near else "install its package"
                warnings.warn(
                    f"auto: line {line.id!r} names the method {c.method!r}, which no installed"
                    f" package provides, so it is passed over; {hint}",
                    stacklevel=3,
                )


@cache
def load_decision_table(path: Path = PATH) -> tuple[Rule, ...]:
    """Return the lines of a YAML file in order: the first that holds for a case decides."""
    content = parse_yaml(read_text(path, "auto"))
    lines = tuple(Rule.model_validate(one) for one in content)
    check_methods(lines, methods())
    return lines


def _flat(given: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in given.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", value))
    return found
