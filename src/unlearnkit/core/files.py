"""Files: written whole or not at all, read with an error that says what to do."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unlearnkit.core.errors import InputError, UnsupportedError


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all: to a temporary name, then renamed.

    Args:
        path: Where; folders on the way are made.
        content: All of it.

    Returns:
        The path.

    Raises:
        InputError: If the place cannot be written.
    """
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as e:
        raise InputError(
            f"cannot write {str(path)!r}: {e.strerror}; choose another place"
        ) from None
    finally:
        if part:
            Path(part).unlink(missing_ok=True)
    return path


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write rows as a file.

    Args:
        path: Ends in ``.csv``, or in ``.parquet``, which needs pandas and pyarrow.
        names: Of the columns.
        rows: One value a column; None is empty.

    Returns:
        The path.

    Raises:
        InputError: If the ending is another.
        UnsupportedError: If Parquet is asked for and pandas or pyarrow is absent.
    """
    if path.suffix == ".csv":
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(names)
        out.writerows(rows)
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


def read_yaml(path: Path, what: str, keys: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        path: The file.
        what: What it should describe, for messages.
        keys: What it should hold, for messages.

    Returns:
        The mapping.

    Raises:
        InputError: If the file cannot be read or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"{what}: cannot read {str(path)!r}: {e.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InputError(f"{what}: {str(path)!r} is no YAML: {' '.join(str(e).split())}") from None
    if not isinstance(content, Mapping):
        raise InputError(
            f"{what}: {str(path)!r} must hold keys such as {keys}, got {type(content).__name__}"
        )
    return dict(content)
