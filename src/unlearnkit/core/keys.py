"""Keys: the user's own names of rows and owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.request import (
    LONGEST_KEY,
    Features,
    ForgetRequest,
    Groups,
    Key,
    Labels,
    Rows,
)
from unlearnkit.core.row_selection import as_kind
from unlearnkit.core.text import one_line

_MISSING = {"NoneType", "NAType", "NaTType"}


@dataclass(frozen=True)
class Keys:
    """What a user calls rows and owners; positions and whole numbers where nothing is given."""

    rows: tuple[Key, ...] | None = None
    """One a training row, unique; None where rows are named by their positions."""

    owners: tuple[str, ...] | None = None
    """The owner that each number in ``Data.group`` stands for; None where owners are numbers."""

    deleted_rows: frozenset[Key] = frozenset()
    """Keys of the rows that ``Case.after_deletion`` removed."""

    deleted_owners: frozenset[Key] = frozenset()
    """Owners whose rows ``Case.after_deletion`` removed."""

    deleted_classes: frozenset[int] = frozenset()
    """Classes that ``Case.after_deletion`` removed from a case without data."""

    renumbered: int = 0
    """Rows without keys that were removed: positions now are not those of before."""

    def locate(self, request: ForgetRequest) -> ForgetRequest:
        """Return a request with positions for keys and numbers for owners.

        Args:
            request: As the user wrote it.

        Returns:
            The request for ``rows_to_forget``. Keys that are unknown or already deleted, and
            positions after a deletion, are refused.
        """
        if isinstance(request, Rows):
            return Rows(self._positions(request.rows))
        if isinstance(request, Groups):
            return Groups(self._owner_numbers(request.groups))
        if isinstance(request, Features) and request.rows is not None:
            return request.model_copy(update={"rows": tuple(self._positions(request.rows))})
        if isinstance(request, Labels):
            targets = (target for _, target in request.labels)
            return Labels(tuple(zip(self._positions(request.rows), targets, strict=True)))
        return request

    def after(self, go: Tensor, stay: Tensor, group: Tensor | None) -> Keys:
        """Return the keys of the rows that stay; those that go are remembered as deleted.

        Args:
            go: Positions of the rows that go.
            stay: Positions of the rows that stay.
            group: The owner of each row, if rows have owners.

        Returns:
            The keys.
        """
        gone: set[int] = set()
        if group is not None:
            gone = set(group[go].tolist()) - set(group[stay].tolist())
        owners = {i if self.owners is None else self.owners[i] for i in gone}
        kept = replace(self, deleted_owners=self.deleted_owners | owners)
        if self.rows is None:
            return replace(kept, renumbered=self.renumbered + len(go))
        return replace(
            kept,
            rows=self.named(stay),
            deleted_rows=self.deleted_rows | frozenset(self.named(go)),
        )

    def refuse_deleted_classes(self, classes: Sequence[int]) -> None:
        """Refuse classes that are already deleted, where there are no rows to tell."""
        _refuse_deleted([c for c in classes if c in self.deleted_classes], len(classes), "class")

    def named(self, rows: Tensor | Sequence[int]) -> tuple[Key, ...]:
        """Return what the user calls the rows at these positions ``(k,)``."""
        at: list[int] = rows.tolist() if isinstance(rows, Tensor) else list(rows)
        return tuple(at) if self.rows is None else tuple(self.rows[i] for i in at)

    @cached_property
    def _place(self) -> dict[Key, int]:
        return {key: i for i, key in enumerate(self.rows or ())}

    @cached_property
    def _number(self) -> dict[Key, int]:
        return {name: i for i, name in enumerate(self.owners or ())}

    def _positions(self, wanted: tuple[Key, ...]) -> Sequence[Key]:
        if self.rows is not None:
            return _found(wanted, self._place, self.deleted_rows, "rows", "key")
        if wanted and self.renumbered:
            raise InputError(
                f"rows: positions changed when {self.renumbered} rows were deleted before; name"
                " records by keys: give the first case keys=, such as Case(keys=range(N)), or name"
                " classes, groups or a range of targets"
            )
        return wanted

    def _owner_numbers(self, wanted: tuple[Key, ...]) -> Sequence[Key]:
        if self.owners is not None:
            alive = {k: i for k, i in self._number.items() if k not in self.deleted_owners}
            return _found(wanted, alive, self.deleted_owners, "group", "owner")
        deleted = [n for n in wanted if as_kind(n, int) in self.deleted_owners]
        _refuse_deleted(deleted, len(wanted), "group")
        return wanted


def _found(
    wanted: tuple[Key, ...],
    place: Mapping[Key, int],
    deleted: frozenset[Key],
    who: str,
    what: str,
) -> list[int]:
    """Return where keys are; refuse those that are deleted, unknown or named twice."""
    example = next(iter(place), next(iter(deleted), ""))
    keys = [as_kind(key, type(example)) for key in wanted]
    _refuse_deleted([k for k in keys if k in deleted], len(keys), who)
    unknown = [k for k in keys if k not in place]
    if unknown:
        # A file that was named by mistake holds no key of the case: it is not quoted.
        shown = f": {listed_keys(unknown)}" if len(unknown) < len(keys) else ""
        raise InputError(
            f"{who}: {len(unknown)} of {len(keys)} are no {what} of the case{shown}; it has"
            f" {len(place)}, such as {listed_keys([example])}"
        )
    twice = [k for k, times in Counter(keys).items() if times > 1]
    if twice:
        raise InputError(f"{who}: {listed_keys(twice)} named twice; name each once")
    return [place[k] for k in keys]


def _refuse_deleted(deleted: Sequence[Key], count: int, who: str) -> None:
    if deleted:
        raise InputError(
            f"{who}: {len(deleted)} of {count} are already deleted: {listed_keys(deleted)}; name"
            " only what is left"
        )


def listed_keys(keys: Sequence[Key]) -> str:
    """Return the first few keys, each on one printable line of at most 60 characters."""
    shown = ", ".join(one_line(repr(key), 60) for key in keys[:3])
    return shown if len(keys) <= 3 else f"{shown}, …"


def read_keys(
    values: Any, count: int, who: str = "keys", *, unique: bool = True
) -> tuple[Key, ...]:
    """Return the keys of rows.

    Args:
        values: An array, a tensor, a column or a list of strings or of integers.
        count: Rows.
        who: What to call them in an error.
        unique: Whether each row needs its own.

    Returns:
        One key a row, all strings or all integers.

    Raises:
        InputError: If they are missing, of mixed type, too long, repeated or of another count.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(
            f"{who}: give one string or integer a row, or the name of a table's column, got"
            f" {type(values).__name__}"
        )
    raw = values.tolist() if hasattr(values, "tolist") else list(values)
    keys = [_plain(v) for v in raw]
    if len(keys) != count:
        raise InputError(f"{who}: got {len(keys)} for {count} rows; give one a row")
    lost = [i for i, k in enumerate(keys) if type(k).__name__ in _MISSING or k != k]
    _refuse(lost, count, who, "are missing", "give each row one")
    kinds = {type(k) for k in keys}
    if not kinds <= {str, int}:
        i, odd = next((i, k) for i, k in enumerate(keys) if type(k) not in {str, int})
        raise InputError(
            f"{who}: must be strings or integers, got {type(odd).__name__} in row {i}; give"
            " str(...) of each"
        )
    if len(kinds) > 1:
        i, other = next((i, k) for i, k in enumerate(keys) if type(k) is not type(keys[0]))
        raise InputError(
            f"{who}: strings and integers are mixed, {listed_keys([keys[0]])} in row 0 and"
            f" {listed_keys([other])} in row {i}; give all as strings"
        )
    bad = [i for i, k in enumerate(keys) if not _bounded(k)]
    _refuse(bad, count, who, "are unusable", f"give 1 to {LONGEST_KEY} characters of text each")
    if unique and len(set(keys)) < count:
        twice = [k for k, times in Counter(keys).items() if times > 1]
        raise InputError(
            f"{who}: {len(twice)} stand for several rows: {listed_keys(twice)}; give each row its"
            " own"
        )
    return tuple(keys)


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's own."""
    if isinstance(value, np.str_):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _bounded(key: Key) -> bool:
    if isinstance(key, int):
        return key.bit_length() <= 128
    return 0 < len(key) <= LONGEST_KEY and not any("\ud800" <= c <= "\udfff" for c in key)


def _refuse(rows: Sequence[int], count: int, who: str, what: str, remedy: str) -> None:
    if rows:
        raise InputError(
            f"{who}: {len(rows)} of {count} {what}, in rows {listed_keys(rows)}; {remedy}"
        )


def number_owners(
    groups: Sequence[Any], who: str = "group"
) -> tuple[list[Any], tuple[str, ...] | None]:
    """Return owners that are text as numbers, and the text that each number stands for.

    Args:
        groups: The owners of one or more parts, each one a row; None where there are none.
        who: What to call them in an error.

    Returns:
        The parts, and the names by number, in alphabetical order; parts that are no text come back
        as they are, with None.

    Raises:
        InputError: If owners are missing, or some are text and others are not.
    """
    if not any(_is_text(g) for g in groups):
        return list(groups), None
    parts = [None if g is None else read_keys(g, len(g), who, unique=False) for g in groups]
    names = tuple(sorted({str(k) for part in parts for k in part or ()}))
    number = {name: i for i, name in enumerate(names)}
    if any(isinstance(k, int) for part in parts for k in part or ()):
        raise InputError(f"{who}: strings and integers are mixed; give all owners as strings")
    return [None if p is None else np.array([number[str(k)] for k in p]) for p in parts], names


def _is_text(group: Any) -> bool:
    if group is None or isinstance(group, str | Tensor) or not hasattr(group, "__len__"):
        return False
    return any(isinstance(v, str) for v in (group.tolist() if hasattr(group, "tolist") else group))
