"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from unlearnkit.core.errors import InputError


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
