"""Margins of many models on many examples, kept so that no audit has to train them again.

A row is a model, a column an example. On disk a model is one row appended to flat files and one
line in a journal, written after the row has reached the disk: whatever a crash leaves behind that
line is not believed. Every number of the strong audit is a pure function of what is kept here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_text

COLUMNS = 4096
"""Examples that are read at once: memory does not grow with their number."""


class Membership(IntEnum):
    """What a model had to do with an example."""

    IN = 0
    """It was trained on it."""

    OUT = 1
    """It never saw it."""

    UNLEARNED = 2
    """It was trained on it, and then made to forget it."""

    RETAINED = 3
    """It was trained on it, and kept it while others were forgotten."""


@dataclass(frozen=True)
class ModelId:
    """One model: what it is, and the seed that it came from."""

    who: str
    """``original``, ``unlearned``, ``oracle``, ``floor`` for the second set of oracles, or
    ``placebo`` for what the method makes of these."""

    seed: int


@dataclass(frozen=True)
class ModelRecord:
    """What one model says about E examples."""

    member: ModelId
    margins: Tensor
    """``(E,)``; finite."""

    codes: Tensor
    errors: Tensor
    residuals: Tensor | None = None


@dataclass(frozen=True)
class MarginMatrix:
    """``signals[model, example]``, in memory or mapped from files."""

    margins: Tensor
    """``(M, E)``, float64: how surely a model meets an example's own target."""

    codes: Tensor
    """``(M, E)``, uint8: a ``Code`` for each cell."""

    errors: Tensor
    """``(M, E)``, float32: the error that a person would quote, such as 1 where it is wrong."""

    members: tuple[ModelId, ...]
    """The M models."""

    columns: Mapping[str, Tensor]
    """Row numbers ``(e,)`` of the examples by section, in the order of the columns."""

    residuals: Tensor | None = None
    """``(M, E, P)``, float64: predictions minus targets, where these are P numbers a row."""

    left_out: str = ""
    """Why there is no placebo arm, where the method does not run on retrained models."""

    def __post_init__(self) -> None:
        shape = (len(self.members), sum(map(len, self.columns.values())))
        parts = {"margins": self.margins, "codes": self.codes, "errors": self.errors}
        if self.residuals is not None:
            parts["residuals"] = self.residuals
        for name, part in parts.items():
            found = tuple(part.shape)
            if found[:2] != shape or len(found) != (3 if name == "residuals" else 2):
                raise InputError(
                    f"signals: {name} must have shape {shape}, models by examples, got {found}"
                )
        bad = sum(int((~torch.isfinite(row)).sum()) for row in self.margins)
        if bad:
            raise InputError(
                f"signals: {bad} of {self.margins.numel()} margins are not finite; leave out the"
                " models whose outputs overflow"
            )

    def count(self, who: str) -> int:
        """Return how many models of a kind there are."""
        return sum(m.who == who for m in self.members)

    def place(self, section: str) -> slice:
        """Return the columns of a section.

        Args:
            section: Such as ``forget``.

        Returns:
            The columns.

        Raises:
            InputError: If there is no such section.
        """
        start = 0
        for name, rows in self.columns.items():
            if name == section:
                return slice(start, start + len(rows))
            start += len(rows)
        raise InputError(
            f"signals: no section {section!r}; there are: {', '.join(self.columns) or 'none'}"
        )

    def of(self, who: str, section: str, what: str = "margins") -> Tensor:
        """Return what is known of models of a kind on a section, by seed.

        Args:
            who: The kind of model.
            section: The examples.
            what: ``margins``, ``errors``, ``codes`` or ``residuals``.

        Returns:
            One row a model, one column an example ``(m, e)``, or ``(m, e, P)``; a copy.
        """
        rows = self._rows(who)
        part: Tensor = getattr(self, what)[:, self.place(section)]
        return part[rows].clone()

    def chunks(self, who: str, section: str, size: int = COLUMNS) -> Iterator[Tensor]:
        """Yield the margins of a section by a few columns ``(m, c)``, each a copy."""
        place, rows = self.place(section), self._rows(who)
        for start in range(place.start, place.stop, size):
            yield self.margins[:, start : min(start + size, place.stop)][rows].clone()

    def first(self, models: int) -> MarginMatrix:
        """Return the signals of the first models of each kind, by seed."""
        kinds = dict.fromkeys(m.who for m in self.members)
        return self._picked([self._rows(who)[:models] for who in kinds])

    def without(self, who: str, *, left_out: str = "") -> MarginMatrix:
        """Return the signals of all models but those of a kind.

        Args:
            who: The kind.
            left_out: Why it was left out.

        Returns:
            The signals; the others keep their order.
        """
        rows = [i for i, m in enumerate(self.members) if m.who != who]
        return replace(self._picked([torch.tensor(rows, dtype=torch.long)]), left_out=left_out)

    def _picked(self, rows: Sequence[Tensor]) -> MarginMatrix:
        keep = torch.cat([*rows, torch.empty(0).long()])
        if len(keep) == len(self.members):
            return self  # no copy: what is mapped from files stays there
        return replace(
            self,
            margins=self.margins[keep],
            codes=self.codes[keep],
            errors=self.errors[keep],
            members=tuple(self.members[i] for i in keep.tolist()),
            residuals=None if self.residuals is None else self.residuals[keep],
        )

    def duplicates(self) -> tuple[tuple[ModelId, ...], ...]:
        """Return models that gave the same margins on all examples, bit for bit, in groups."""
        found: dict[bytes, list[ModelId]] = {}
        for member, row in zip(self.members, self.margins, strict=True):
            found.setdefault(_digest(row), []).append(member)
        return tuple(tuple(g) for g in found.values() if len(g) > 1)

    def _rows(self, who: str) -> Tensor:
        seeds = {m.seed: i for i, m in enumerate(self.members) if m.who == who}
        return torch.tensor([seeds[s] for s in sorted(seeds)], dtype=torch.long)


class MarginStore:
    """Signals in a folder, appended model by model.

    Safe against a crash at any moment: a row's data are on the disk before its line is in the
    journal, and what stands behind the last whole line is overwritten.
    """

    def __init__(
        self, root: Path, key: Mapping[str, Any], columns: Mapping[str, Tensor], targets: int = 0
    ) -> None:
        """Open the signals of a key, or begin them.

        Args:
            root: The folder of their folder, whose name is the digest of key and columns.
            key: Everything that they depend on, by content.
            columns: Row numbers of the examples, by section.
            targets: Numbers that an example's target has; 0 where it is a class.

        Raises:
            InputError: If the folder holds the signals of something else, is damaged, or cannot be
                written.
        """
        whole: dict[str, Any] = {
            "key": dict(key),
            "columns": {name: rows.tolist() for name, rows in columns.items()},
        }
        if targets:
            whole["targets"] = targets
        self.folder = folder = root / digest(whole)
        self.columns = dict(columns)
        self._width = sum(map(len, columns.values()))
        self._files = {
            "margins": _File("margins.f64", torch.float64, self._width),
            "codes": _File("codes.u8", torch.uint8, self._width),
            "errors": _File("errors.f32", torch.float32, self._width),
        }
        if targets:
            size = self._width * targets
            self._files["residuals"] = _File("residuals.f64", torch.float64, size)
        self._known: list[dict[str, Any]] = []
        self._size = 0
        head = folder / _HEAD
        with self._told():
            if not head.exists():
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / ".head.lock"):
                    if not head.exists():
                        write_text(head, json.dumps(whole, sort_keys=True))
            try:
                held = json.loads(head.read_text(encoding="utf-8"))
            except ValueError as e:
                raise InputError(f"signals: {str(head)!r} is damaged ({e}); delete it") from None
        if held != json.loads(json.dumps(whole)):
            raise InputError(
                f"signals: {str(folder)!r} belongs to other models or examples; delete it"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other process append meanwhile."""
        with self._told(), FileLock(self.folder / ".lock"):
            yield

    def members(self) -> list[ModelId]:
        """Return the models that are kept, in the order in which they were appended."""
        return [ModelId(line["who"], line["seed"]) for line in self._lines()]

    def append(self, rows: Sequence[ModelRecord]) -> None:
        """Keep the rows of some models, each whole or not at all; only where ``held``.

        Args:
            rows: Of models that are not kept yet.

        Raises:
            InputError: If a margin is not finite, a shape is wrong, or a model is kept already.
        """
        have = {(line["who"], line["seed"]) for line in self._lines()}
        for row in rows:
            name = f"{row.member.who} {row.member.seed}"
            if (row.member.who, row.member.seed) in have:
                raise InputError(f"signals: {name} is kept already")
            self._check(name, row)
        content = {
            what: [_bytes(getattr(row, what).to(file.dtype)) for row in rows]
            for what, file in self._files.items()
        }
        lines = [
            {
                "who": row.member.who,
                "seed": row.member.seed,
                "digest": {what: hashlib.sha256(c[i]).hexdigest() for what, c in content.items()},
            }
            for i, row in enumerate(rows)
        ]
        lines = [{**line, "seal": digest(line)} for line in lines]
        with self._told():
            for what, file in self._files.items():
                start = len(have) * file.size * file.dtype.itemsize
                _extend(self.folder / file.name, start, b"".join(content[what]))
            _extend(self.folder / _JOURNAL, self._size, b"".join(map(_text, lines)))

    def _check(self, name: str, row: ModelRecord) -> None:
        for what, file in self._files.items():
            shape = tuple(getattr(row, what).shape)
            if shape[:1] != (self._width,) or math.prod(shape) != file.size:
                raise InputError(
                    f"signals: {what} of {name} must be {file.size} numbers, got shape {shape}"
                )
        bad = int((~torch.isfinite(row.margins)).sum())
        if bad:
            raise InputError(
                f"signals: {bad} of {self._width} margins of {name} are not finite; the model's"
                " outputs overflow, and it cannot be audited"
            )

    def read(self) -> MarginMatrix:
        """Return what is kept; the margins stay on the disk until they are looked at.

        Returns:
            The signals.
        """
        members = tuple(self.members())
        with suppress(OSError):  # a folder that is only read
            os.utime(self.folder / _HEAD)  # read now: kept for longer
        mapped = {what: self._mapped(what, len(members)) for what in self._files}
        if "residuals" in mapped:
            size = self._files["residuals"].size
            shape = (len(members), self._width, size // max(self._width, 1))
            mapped["residuals"] = mapped["residuals"].view(shape)
        return MarginMatrix(
            mapped["margins"],
            mapped["codes"],
            mapped["errors"],
            members,
            self.columns,
            mapped.get("residuals"),
        )

    def _lines(self) -> list[dict[str, Any]]:
        """Return the journal's whole lines; those that are new are checked against their rows."""
        path = self.folder / _JOURNAL
        with self._told():
            content = path.read_bytes()[self._size :] if path.exists() else b""
        lines = [t for t in content.splitlines(keepends=True) if t.endswith(b"\n")]
        try:
            found = [_line(text) for text in lines]
        except ValueError:
            raise InputError(
                f"signals: {str(path)!r} is damaged; delete {str(self.folder)!r}"
            ) from None
        have = len(self._known)
        for what in self._files:
            rows = self._mapped(what, have + len(found))[have:]
            for line, row in zip(found, rows, strict=True):
                if hashlib.sha256(_bytes(row)).hexdigest() != line["digest"][what]:
                    raise InputError(
                        f"signals: {what} of {line['who']} {line['seed']} changed on the disk;"
                        f" delete {str(self.folder)!r}"
                    )
        self._known += found
        self._size += sum(map(len, lines))
        return self._known

    def _mapped(self, what: str, models: int) -> Tensor:
        file = self._files[what]
        size = models * file.size
        path = self.folder / file.name
        if not size:
            return torch.empty(models, file.size, dtype=file.dtype)
        if not path.exists() or path.stat().st_size < size * file.dtype.itemsize:
            raise InputError(f"signals: {str(path)!r} is too short; delete {str(self.folder)!r}")
        flat = torch.from_file(str(path), shared=False, size=size, dtype=file.dtype)
        return flat.view(models, file.size)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise InputError(
                f"signals: cannot use {str(self.folder)!r}: {e.strerror or e}; set"
                " UNLEARNKIT_CACHE to another folder"
            ) from None


_HEAD = "signals.json"
_JOURNAL = "models.jsonl"


@dataclass(frozen=True)
class _File:
    """What is kept of each model in one file."""

    name: str
    dtype: torch.dtype
    size: int
    """Numbers a model."""


def _extend(path: Path, start: int, content: bytes) -> None:
    """Write at a place, cut off what stood behind it, and wait for the disk."""
    with path.open("r+b" if path.exists() else "xb") as f:
        f.seek(start)
        f.write(content)
        f.truncate()
        f.flush()
        os.fsync(f.fileno())


def _text(line: Mapping[str, Any]) -> bytes:
    return (json.dumps(line, sort_keys=True) + "\n").encode()


def _line(text: bytes) -> dict[str, Any]:
    """Return a line of the journal; ValueError where it is not what was written."""
    line = json.loads(text)
    if not isinstance(line, dict) or line.pop("seal", None) != digest(line):
        raise ValueError("not a line that was written")
    return line


def _bytes(row: Tensor) -> bytes:
    return bytes(row.contiguous().numpy().data)


def _digest(row: Tensor) -> bytes:
    return hashlib.sha256(_bytes(row)).digest()
