"""Reproduction: published values against those of our study."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.method import format_validation_error
from unlearnkit.core.runtime import Reporter, Runtime
from unlearnkit.core.version import __version__
from unlearnkit.reproduction.published_table import FOLDER, Published, PublishedValue
from unlearnkit.stats.intervals import t_half_width
from unlearnkit.stats.paired_test import ENOUGH_FOR_INTERVALS
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.table.build_table import show
from unlearnkit.studies.table.study_table import Table
from unlearnkit.studies.table_schema import TableRow as Row

Verdict = Literal["reproduced", "not reproduced", "not comparable"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "not comparable")


class Compared(FrozenModel):
    """A published value against ours."""

    line: PublishedValue
    ours: float | None = None
    """Mean over seeds (or oracles); None where there is none."""

    low: float | None = None
    high: float | None = None
    """Student's 95 % interval of the mean."""

    count: int = 0
    """Seeds (or oracles)."""

    verdict: Verdict
    reason: str
    """Why this verdict, in words."""


class Comparison(FrozenModel):
    """A published table and its outcome here."""

    name: str
    version: str
    """Of unlearnkit."""

    torch: str
    machine: str
    device: str
    lines: tuple[Compared, ...]

    def summary(self) -> str:
        """Return how many lines ended how."""
        found = [c.verdict for c in self.lines]
        return ", ".join(f"{found.count(v)} {v}" for v in VERDICTS if v in found)


def why_not_runnable(table: Published, device: str | None = None) -> str | None:
    """Return why a table cannot be run on this machine; None where it can."""
    if table.study is None:
        return "there is nothing to run"
    try:
        Runtime.on(device or table.study.device)
    except UnlearnkitError as e:
        return str(e)
    return None


def reproduce(
    table: Published,
    store: Store,
    cache: Cache,
    *,
    jobs: int = 1,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Return a published table against ours; runs in the store are not repeated."""
    study = table.study
    place = device or (study.device if study else "none")
    why = why_not_runnable(table, device)
    if study is None or why is not None:
        lines = tuple(_absent(line, why or "") for line in table.lines)
    else:
        study = study.model_copy(update={"device": place})
        run(study, store, cache, jobs=jobs, reporter=reporter)
        wanted = dict.fromkeys(n.metric for n in table.lines if not n.not_comparable)
        lines = compare(table, show(study, store, wanted))
    return Comparison(
        name=table.name,
        version=__version__,
        torch=str(torch.__version__),
        machine=platform.machine(),
        device=place,
        lines=lines,
    )


def compare(table: Published, found: Table) -> tuple[Compared, ...]:
    """Return each published value against ours.

    Reproduced: our mean lies within the tolerance of the printed value. Not comparable: our 95 %
    interval is wider than the tolerance.

    Returns:
        One comparison a line, in order.
    """
    return tuple(_compared(line, found) for line in table.lines)


def last_outcome(name: str, folder: Path = FOLDER) -> Comparison | None:
    """Return the committed outcome of a table; None if it never ran."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except ValidationError as e:
        raise InputError(f"reproduction: {path.name}: {format_validation_error(e)}") from None


def _absent(line: PublishedValue, why: str) -> Compared:
    return Compared(line=line, verdict="not comparable", reason=line.not_comparable or why)


def _compared(line: PublishedValue, found: Table) -> Compared:
    if line.not_comparable:
        return _absent(line, "")
    row = _row(line, found)
    if row is None:
        return _absent(line, f"nothing was measured of {line.of}")
    cell = row.cells.get(line.metric)
    if cell is None or cell.mean is None or not math.isfinite(cell.mean):
        errors = _failed(line, row, found)
        return _absent(line, f"no number: {errors or 'it is undefined here'}")
    low = high = reach = None
    if cell.count >= ENOUGH_FOR_INTERVALS and cell.sd is not None and not row.same:
        reach = t_half_width(cell.count) * cell.sd
        low, high = cell.mean - reach, cell.mean + reach
    verdict, reason = _judged(line, row, cell.mean - line.value, reach)
    return Compared(
        line=line,
        ours=cell.mean,
        low=low,
        high=high,
        count=cell.count,
        verdict=verdict,
        reason=reason,
    )


def _judged(line: PublishedValue, row: Row, gap: float, reach: float | None) -> tuple[Verdict, str]:
    """Return the verdict on a gap, given half the width of our interval."""
    assert line.tolerance is not None
    if row.failed:
        return "not reproduced", f"{row.failed} of {row.failed + row.count} runs failed"
    if row.absent:
        return "not comparable", f"{row.absent} runs are not done"
    if row.same:
        return "not comparable", "all seeds gave one model, which has no interval; use design FULL"
    if reach is None:
        return "not comparable", f"{row.count} seeds give no interval; {ENOUGH_FOR_INTERVALS} do"
    if reach > line.tolerance:
        return (
            "not comparable",
            f"our interval, ± {reach:.2g}, is wider than the tolerance of {line.tolerance:g}",
        )
    text = f"gap {gap:+.2g}, tolerance {line.tolerance:g}"
    return ("reproduced" if abs(gap) <= line.tolerance else "not reproduced"), text


def _row(line: PublishedValue, found: Table) -> Row | None:
    """Return the row of a study's table that a line speaks of."""
    block = next(b for b in found.blocks if b.request == line.request)
    exact = [n for n in block.lines if n.label == line.of]
    by_method = [n for n in block.lines if n.kind == "method" and n.method == line.of]
    rows = exact or by_method
    if len(rows) > 1:
        raise InputError(
            f"reproduction: {line.of} is in the study {len(rows)} times; name one of"
            f" {', '.join(n.label for n in rows)}"
        )
    if rows:
        return rows[0]
    if line.of in {"original", "oracle"}:
        return None
    known = [n.label for n in block.lines]
    raise InputError(f"reproduction: no {line.of!r} in the study; there are: {', '.join(known)}")


def _failed(line: PublishedValue, row: Row, found: Table) -> str:
    return next(_errors(line, row, found), "")


def _errors(line: PublishedValue, row: Row, found: Table) -> Iterator[str]:
    for failure in found.failures:
        if (failure.request, failure.label) == (line.request, row.label):
            yield f"all {row.failed} runs failed: {failure.error.strip().splitlines()[-1]}"
