"""Published table: its values, source and study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.files import read_yaml
from unlearnkit.core.method import format_validation_error
from unlearnkit.studies.spec import Study, make_study

FOLDER = Path(__file__).parent / "tables"
"""One YAML file a table, and its last outcome as JSON."""


class Source(FrozenModel):
    """Where a table was printed, and how its numbers were read."""

    title: str
    arxiv: str | None = None
    """Its number, where it has one."""

    place: str
    """Number of the table or section."""

    read: str
    """How the numbers came here: from the table itself, or second-hand."""


class PublishedValue(FrozenModel):
    """One number of a published table."""

    of: str
    """``original``, ``oracle``, or a method of the study by id or by label; any words where the
    line cannot be compared."""

    request: str
    """As the study names it."""

    metric: str
    """Id of the metric; any words where the line cannot be compared."""

    printed: str
    """As published."""

    value: float = Field(allow_inf_nan=False)
    """The same in the metric's unit."""

    tolerance: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest gap that counts as none, fixed before the first run."""

    why: str = ""
    """Where the tolerance comes from."""

    differs: str = ""
    """What differs here for this line alone."""

    not_comparable: str = ""
    """Why we have no number to compare."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.not_comparable and (self.tolerance is None or not self.why):
            raise InputError(
                f"reproduction: {self.of} {self.metric}: give tolerance and why, or not_comparable"
            )
        return self


class Published(FrozenModel):
    """A table with what it takes to repeat it."""

    name: str
    source: Source
    setting: str
    """Data, network, training and forget set, in words."""

    takes: str
    """How long it takes, and on which machine."""

    differs: tuple[str, ...] = ()
    """What differs here for all lines."""

    study: Study | None = None
    """What is run; None where it cannot be."""

    lines: tuple[PublishedValue, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _askable(self) -> Self:
        if self.study is not None and len(self.study.cases) != 1:
            raise InputError(f"reproduction: {self.name}: one case a table")
        for line in self.lines:
            if not line.not_comparable:
                if self.study is None:
                    raise InputError(
                        f"reproduction: {self.name}: {line.of} {line.metric}: without a study say"
                        " in not_comparable what would be needed"
                    )
                asked = self.study.requests[self.study.cases[0]]
                if line.request not in asked:
                    raise UnknownNameError("request of the study", line.request, asked)
        return self

    @property
    def where(self) -> str:
        """Return the source in a line."""
        number = f", arXiv:{self.source.arxiv}" if self.source.arxiv else ""
        return f"{self.source.title}{number}, {self.source.place}"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the tables."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def load(name: str, folder: Path = FOLDER) -> Published:
    """Return a published table by name."""
    if name not in names(folder):
        raise UnknownNameError("reproduction", name, names(folder))
    return make_published(
        name, read_yaml(folder / f"{name}.yaml", "reproduction", "source, setting and lines")
    )


def make_published(name: str, given: Mapping[str, Any]) -> Published:
    """Return the table that a mapping describes; ``study`` is a study file without a name."""
    words = {**given, "name": name}
    if words.get("study") is not None:
        words["study"] = make_study({"name": name, **words["study"]})
    try:
        return Published.model_validate(words)
    except ValidationError as e:
        raise InputError(f"reproduction: {name}: {format_validation_error(e)}") from None
