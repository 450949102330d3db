"""Key words: the numbers, ranges and keys that a text or a file names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import MOST_BYTES, check_regular, read_text
from unlearnkit.core.text import one_line

MOST_NUMBERS = 10**6
"""Most numbers that words, a file or a record may name; each is kept in the record of the run."""

_WHOLE = re.compile(r"0|-?[1-9]\d{0,37}")
"""As Python writes a number: 007 is a key, and stays one."""

_RANGE = re.compile(r"[-+]?\d{1,38}:[-+]?\d{1,38}")
_NUMBERS = re.compile(r"(?:[-+:\d,]|\s)*")
_TABLE = re.compile(r"(.+\.(?:csv|tsv))(?::(.+))?", re.IGNORECASE)
_HEADER = re.compile(r"(?:.*[\W_])?(?:ids?|keys?|rows?|index|groups?|class(?:es)?)", re.IGNORECASE)
_FILES = "name a file with a number or key a line, a CSV file, JSON or .npy"


def parse_keys(text: str, whole: str, *, numbers: bool) -> list[int] | list[str]:
    """Return the numbers or keys of a text, or of the file that it names after an ``@``.

    Numbers with leading zeros and the like are keys; where one value is a key, all are.

    Args:
        text: ``0:100,205``, ``a17,b03``, ``@rows.txt``, ``@rows.csv:id``, ``@rows.json``.
        whole: What the user wrote, for errors; a file is never quoted.
        numbers: Whether only numbers count.

    Returns:
        All integers or all strings.
    """
    if text.startswith("@"):
        return _from_file(text[1:], numbers)
    parts = [part.strip() for part in text.split(",")]
    said = one_line(whole, 80)
    words = [(p, f"{one_line(p, 80)!r} is not a number") for p in parts]
    return _read(words, f", in {said!r}", numbers)


def parse_pairs(text: str, whole: str) -> list[tuple[int | str, str]]:
    """Return the keys and values of a text such as ``12:3,40:1``, or of a file of two columns.

    Args:
        text: ``key:value`` pairs with commas between, or ``@file.csv`` with a key and a value a
            line, with or without a header.
        whole: What the user wrote, for errors; a file is never quoted.

    Returns:
        One pair a row; keys are all integers or all strings.

    Raises:
        InputError: If a pair has no key or no value.
    """
    if text.startswith("@"):
        cells = _cells(Path(text[1:]))
        if cells and len(cells[0]) == 2 and _HEADER.fullmatch(cells[0][0].strip()):
            cells = cells[1:]
        pairs = [tuple(cell.strip() for cell in row) for row in cells]
        where = f"row {{}} of {text[1:]!r}"
    else:
        pairs = [tuple(p.strip() for p in part.rsplit(":", 1)) for part in text.split(",")]
        where = f"pair {{}} of {one_line(whole, 80)!r}"
    for i, pair in enumerate(pairs, 1):
        if len(pair) != 2 or not all(pair):
            raise InputError(
                f"forget: {where.format(i)} is no key and value; write labels=12:3,40:1, or a CSV"
                " file with a key and a value a line"
            )
    if not pairs:
        raise InputError("forget: the file names no row; write a key and a value a line")
    keys = _read([(key, "") for key, _ in pairs], "", numbers=False)
    if len(keys) != len(pairs):
        raise InputError("forget: a key of a correction is a range; name each row by itself")
    return list(zip(keys, (value for _, value in pairs), strict=True))


def _from_file(name: str, numbers: bool) -> list[int] | list[str]:
    table = _TABLE.fullmatch(name)
    if table is not None:
        values = _column(Path(table[1]), table[2])
    elif name.lower().endswith(".json"):
        values = _from_json(Path(name))
    elif name.lower().endswith(".npy"):
        values = _from_array(Path(name))
    else:
        values = _lines(Path(name))
    words = [(v, f"value {i} of {name!r} is not a number") for i, v in enumerate(values, 1)]
    return _read(words, "", numbers)


def _read(words: list[tuple[Any, str]], where: str, numbers: bool) -> list[int] | list[str]:
    """Return numbers where all words are some, else the words, as they are."""
    words = [(w, wrong) for w, wrong in words if w != ""]
    if numbers or all(_WHOLE.fullmatch(str(w)) or _RANGE.fullmatch(str(w)) for w, _ in words):
        return _counted(words, where)
    if len(words) > MOST_NUMBERS:
        raise _too_many(len(words))
    return [str(w) for w, _ in words]


def _counted(words: Iterable[tuple[Any, str]], where: str) -> list[int]:
    """Return the numbers of numbers and ranges, each with what to say where it is neither."""
    found: list[int] = []
    for word, wrong in words:
        first, colon, last = str(word).partition(":")
        try:
            some = range(int(first), int(last)) if colon else (int(word),)
            count = len(found) + len(some)
        except (ValueError, OverflowError):
            raise InputError(f"forget: {wrong} or a range{where}; write 3 or 0:100") from None
        if count > MOST_NUMBERS:
            raise _too_many(count)
        found += some
    return found


def _too_many(count: int) -> InputError:
    return InputError(
        f"forget: at most {MOST_NUMBERS:,} numbers in words, got {count:,} or more; name classes,"
        " groups or a range of targets, or pass Rows(tensor) in Python"
    )


def _lines(path: Path) -> list[str]:
    """Return a key a line; lines of nothing but numbers and ranges may hold several."""
    text = read_text(path, "forget", what=_FILES).removeprefix("\ufeff")
    if _NUMBERS.fullmatch(text):
        return text.replace(",", " ").split()
    return [line.strip() for line in text.splitlines() if line.strip()]


def _cells(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file by row, without empty rows."""
    text = read_text(path, "forget", what=_FILES).removeprefix("\ufeff")
    first = text.partition("\n")[0]
    mark = next((m for m in "\t;," if m in first), ",")
    try:
        return [row for row in csv.reader(io.StringIO(text), delimiter=mark) if any(row)]
    except csv.Error as e:
        raise InputError(f"forget: {str(path)!r} is no CSV file: {e}") from None


def _column(path: Path, name: str | None) -> list[str]:
    """Return one column of a CSV file: the one that is named, or the only one."""
    rows = _cells(path)
    head = [cell.strip() for cell in rows[0]] if rows else []
    if name is None and len(head) > 1:
        raise InputError(
            f"forget: {str(path)!r} has {len(head)} columns; name one: @{path.name}:column"
        )
    at = 0
    if name in head:
        at = head.index(name)
    elif name is not None and name.isdecimal() and int(name) < len(head):
        at = int(name)
    elif name is not None:
        raise InputError(
            f"forget: {str(path)!r} has no column {one_line(name, 60)!r} in its first line; name"
            " one that it has, or its number from 0"
        )
    if name in head or (head and _HEADER.fullmatch(head[at])):
        rows = rows[1:]
    cells = [row[at].strip() if at < len(row) else "" for row in rows]
    empty = [i for i, cell in enumerate(cells, 1) if not cell]
    if empty:
        raise InputError(
            f"forget: {len(empty)} of {len(cells)} rows of {str(path)!r} have no key, first row"
            f" {empty[0]}; fill them in or take them out"
        )
    return cells


def _from_json(path: Path) -> list[Any]:
    """Return a list of strings or integers, or the only list that an object holds."""
    try:
        content = json.loads(read_text(path, "forget", what=_FILES))
    except (ValueError, RecursionError):
        raise InputError(f"forget: {str(path)!r} is no JSON; {_FILES}") from None
    if isinstance(content, Mapping) and len(content) == 1:
        (content,) = content.values()
    if not isinstance(content, list) or {type(v) for v in content} not in ({int}, {str}, set()):
        raise InputError(
            f"forget: {str(path)!r} must hold one list, all strings or all integers; write"
            ' ["a17", "b03"]'
        )
    return content


def _from_array(path: Path) -> list[Any]:
    check_regular(path, "forget", _FILES)
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"forget: {str(path)!r} has more than {MOST_BYTES:,} bytes; split it")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as e:
        raise InputError(
            f"forget: {str(path)!r} is no array of numbers or text ({type(e).__name__});"
            " save np.array(ids)"
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iuU":
        raise InputError(
            f"forget: {str(path)!r} must hold one row of integers or text, such as"
            " mask.nonzero()[0]; save np.array(ids)"
        )
    return list(array.tolist())
