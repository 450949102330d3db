"""Files: written whole or not at all, read up to a limit."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unlearnkit.core.bounded_yaml import parse_yaml
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.text import spreadsheet_cell
from unlearnkit.core.torchrun_environment import writes_files

MOST_BYTES = 32 * 2**20
"""Most bytes of a file of words that is read: a job, a study, a record, a list of rows."""


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all, with its folders; raise ``InputError`` if impossible."""
    write_together({path: content})
    return path


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files that belong together, all of them or none, with their folders.

    All are on disk under temporary names before the first gets its own. Of the processes that
    ``torchrun`` started the first alone writes.

    Raises:
        InputError: If a place cannot be written or the disk is full; the files are then as they
            were.
    """
    if not writes_files():
        return
    parts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}.", suffix=".part"
            )
            parts[path] = Path(part)
            with os.fdopen(handle, "wb") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
            Path(part).chmod(0o644)
        for path in parts:
            if path.is_dir():
                raise InputError(_unwritten(path, "it is a folder"))
        for path, part_of_it in parts.items():
            part_of_it.replace(path)
    except OSError as e:
        raise InputError(_unwritten(path, e)) from None
    finally:
        for leftover in parts.values():
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def check_writable(path: Path, who: str) -> None:
    """Refuse, before long work, a file or folder that could not be written at the end.

    Raises:
        InputError: If it is a link that leads nowhere, or its folder cannot be made or written.
    """
    try:
        near = path
        while not near.exists():
            if near.is_symlink():
                raise InputError(
                    f"{who}: {str(near)!r} is a link that leads nowhere; remove it, or choose"
                    " another place"
                )
            near = near.parent
        if near != path and not near.is_dir():
            raise InputError(f"{who}: {_unwritten(path, f'{str(near)!r} is no folder')}")
        tempfile.TemporaryFile(dir=path.parent if near == path else near).close()
    except (OSError, ValueError) as e:
        raise InputError(f"{who}: {_unwritten(path, e)}") from None


def _unwritten(path: Path, why: Exception | str) -> str:
    reason = getattr(why, "strerror", None) or why
    return f"cannot write {str(path)!r}: {reason}; choose another place"


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Return the path of rows written as ``.csv``, or ``.parquet`` (needs pandas and pyarrow).

    None is an empty cell. In CSV a text that a spreadsheet would read as a formula gets an
    apostrophe before it.

    Raises:
        InputError: If the file name ends otherwise.
        UnsupportedError: If Parquet is requested and pandas or pyarrow is absent.
    """
    if path.suffix == ".csv":
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        for row in (names, *rows):
            out.writerow([spreadsheet_cell(value) for value in row])
        return write_text(path, text.getvalue())
    if path.suffix != ".parquet":
        raise InputError(f"export: ends in .csv or .parquet, got {path.name!r}")
    try:
        import pandas as pd
        import pyarrow  # type: ignore[import-untyped]  # noqa: F401  # pandas writes with it
    except ImportError as e:
        raise UnsupportedError(
            f"export: Parquet needs {e.name}; pip install pandas pyarrow, or export .csv"
        ) from None
    buffer = io.BytesIO()
    pd.DataFrame(list(rows), columns=list(names)).to_parquet(buffer, index=False)
    return write_bytes(path, buffer.getvalue())


def check_regular(path: Path, who: str, what: str = "") -> None:
    """Refuse what is not a regular file: a pipe or a device could be read for ever.

    Raises:
        InputError: If it is absent, or a folder, a pipe, a socket or a device; ``what`` says what
            to do.
    """
    more = f"; {what}" if what else ""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise InputError(f"{who}: cannot read {str(path)!r}: {why}{more}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(
            f"{who}: cannot read {str(path)!r}: it is {kind}; {what or 'name a regular file'}"
        )


def read_text(path: Path, who: str, *, most: int = MOST_BYTES, what: str = "") -> str:
    """Return the text of a regular file of at most ``most`` bytes; errors never quote it.

    Raises:
        InputError: If it cannot be read, is too long or is no text; ``what`` says what to do.
    """
    check_regular(path, who, what)
    more = f"; {what}" if what else ""
    try:
        with path.open("rb") as f:
            content = f.read(most + 1)
    except OSError as e:
        raise InputError(f"{who}: cannot read {str(path)!r}: {e.strerror}{more}") from None
    if len(content) > most:
        raise InputError(f"{who}: {str(path)!r} has more than {most:,} bytes; give a shorter file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{who}: {str(path)!r} is not a text file; {what or 'give one in UTF-8'}"
        ) from None


def read_yaml(path: Path, what: str, keys: str) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON (``.json``) file; messages name ``what`` and ``keys``.

    Raises:
        InputError: If the file cannot be read, is too large or holds no mapping.
    """
    text = read_text(path, what)
    form = "JSON" if path.suffix == ".json" else "YAML"
    try:
        content = json.loads(text) if form == "JSON" else parse_yaml(text)
    except (ValueError, RecursionError) as e:
        why = f"line {e.lineno}" if isinstance(e, json.JSONDecodeError) else e
        raise InputError(f"{what}: {str(path)!r} is no {form} that can be used: {why}") from None
    if not isinstance(content, Mapping):
        raise InputError(
            f"{what}: {str(path)!r} must hold keys such as {keys}, got {type(content).__name__}"
        )
    return dict(content)
