"""Table schema: the values that a study's text, files and page show."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.stats.oracle_gap import Judgement

Kind = Literal["oracle", "original", "method"]


class Column(FrozenModel):
    """What a column shows, and which value is good."""

    id: str
    goal: Literal["high", "low", "match retraining", "descriptive"]
    ideal: float | None
    """The best value; None where it is the oracles' own, or where there is none."""

    distance: bool
    """Whether it is a distance to the oracles: then two oracles' distance is the ideal."""

    unit: str
    doc: str
    """What it is, in a sentence."""

    @property
    def best(self) -> str:
        """Return the ideal in words."""
        if self.ideal is not None:
            return f"{self.ideal:g}"
        return "oracle" if self.distance or self.goal == "match retraining" else ""


class TableCell(FrozenModel):
    """One number of one line: the mean over seeds, compared with the oracles."""

    mean: float | None
    """None where it is undefined."""

    sd: float | None = None
    """Deviation over seeds; over oracles on their own line."""

    low: float | None = None
    high: float | None = None
    """Student's 95 % interval of the mean; None for fewer than three seeds."""

    count: int
    """Seeds (or oracles) that the mean is over."""

    gap: float | None = None
    """Mean minus the oracles' mean."""

    gap_low: float | None = None
    gap_high: float | None = None
    """95 % interval of the gap; needs three seeds and three oracles."""

    margin: float | None = None
    """Largest gap that counts as none."""

    p: float | None = None
    """Of the test of equivalence."""

    judgement: Judgement = Judgement.NOT_JUDGED


class TableRow(FrozenModel):
    """The oracles, the untouched original, or one method with its settings."""

    label: str
    kind: Kind
    method: str = ""
    preset: str | None = None
    settings: dict[str, object] = Field(default_factory=dict)
    count: int
    """Runs that are done; oracles; originals."""

    failed: int = 0
    absent: int = 0
    """Planned runs that were not tried yet, or were cancelled."""

    same: bool = False
    """Whether all seeds gave the same numbers, because the method draws none: one point."""

    cells: dict[str, TableCell]
    verdicts: dict[str, int] = Field(default_factory=dict)
    """How many seeds the audit's headline was given to, where it was stored."""


class MethodComparison(FrozenModel):
    """Two methods on the same seeds, by how far each is from its ideal."""

    metric: str
    first: str
    second: str
    count: int
    """Seeds that both have."""

    difference: float
    """Mean over seeds of the first's distance from the ideal minus the second's; below 0 the first
    is nearer."""

    low: float | None
    high: float | None
    """Student's 95 % interval over seeds; None for fewer than three."""

    p: float | None
    """Of the exact sign-flip permutation test, two-sided; None for more than 30 seeds."""

    least_p: float
    """The smallest that so many seeds can give: ``2 / 2^n``."""


class RandomMaskComparison(MethodComparison):
    """A method under a mask, and the same under a random mask of the same budget."""

    word: Literal["beats it", "loses to it", "no difference shown", "too few seeds"]
    """What the interval says: below 0, above 0, around 0; there is none for fewer than three."""


class ForgetSetTable(FrozenModel):
    """One forget set: a case and a request."""

    case: str
    request: str
    columns: tuple[str, ...]
    """Ids of the columns that were measured here."""

    lines: tuple[TableRow, ...]
    """The oracles, the original, then the methods as the study names them."""

    pairs: tuple[MethodComparison, ...]
    chances: tuple[RandomMaskComparison, ...] = ()
    """Whether choosing what may move did better than chance; empty where nothing was chosen."""

    oracles: int

    def line(self, label: str) -> TableRow:
        """Return the line with a label; an unknown label is an error."""
        for line in self.lines:
            if line.label == label:
                return line
        raise InputError(
            f"table: no line {label!r}; there are: {', '.join(n.label for n in self.lines)}"
        )


class Failure(FrozenModel):
    """A run that came to nothing, and why."""

    case: str
    request: str
    label: str
    seed: int
    status: Literal["failed", "cancelled"]
    error: str


class TableData(FrozenModel):
    """What a study has found so far."""

    study: str
    about: str
    design: Literal["FULL", "REUSE"]
    tier: AuditTier
    seeds: tuple[int, ...]
    planned_runs: int
    done: int
    columns: tuple[Column, ...]
    blocks: tuple[ForgetSetTable, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know before believing a number."""

    def column(self, name: str) -> Column:
        """Return a column by its id."""
        return next(c for c in self.columns if c.id == name)
