"""A run's folder: weights, record, report; it appears whole or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from unlearnkit.auto.driver import Choice
from unlearnkit.core.errors import InputError
from unlearnkit.job import Job

RECORD, MODEL, ORIGINAL = "run.json", "model.safetensors", "original.safetensors"
MASK = "mask.safetensors"
RUNS = Path("runs")


class Record(BaseModel):
    """Everything needed to run a run again, and what it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    job: Job
    key: str
    """Digest of every input."""

    made: str
    """UTC, ISO 8601."""

    versions: dict[str, str]
    digests: dict[str, str]
    """Of the weights ``original`` and ``unlearned``, and of the ``train`` rows where known."""

    seconds: float
    forward: int
    backward: int
    peak_bytes: int
    notes: tuple[str, ...] = ()
    mask: dict[str, Any] | None = None
    """How the mask was found and how large it is; None where everything might move."""

    auto: Choice | None = None
    """What was tried and why, where ``auto`` chose; the job then names the method that it chose."""

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Return the record of a run's folder.

        Args:
            folder: The folder.

        Returns:
            The record.

        Raises:
            InputError: If there is none, or it is damaged or of a newer version.
        """
        path = folder / RECORD
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise InputError(f"run: cannot read {str(path)!r}: {e.strerror}") from None
        except ValidationError as e:
            raise InputError(
                f"run: {str(path)!r} is no record of a run: {e.error_count()} fields are wrong"
            ) from None


def named(name: str) -> Path:
    """Return the folder of a run's name.

    Args:
        name: One word or several; no path.

    Returns:
        A folder in ``runs``.

    Raises:
        InputError: If the name could lead elsewhere.
    """
    if not re.fullmatch(r"\w[\w .,=+-]*", name) or name.endswith("."):
        raise InputError(
            f"name: letters, digits, spaces and .,=+- only, a letter or digit first, got {name!r};"
            " use --out for a path"
        )
    return RUNS / name


def existing(run: str) -> Path:
    """Return the folder of a run that is there, given its path or its name.

    Args:
        run: A path, or the name of a folder in ``runs``.

    Returns:
        The folder.

    Raises:
        InputError: If there is none.
    """
    folder = Path(run)
    if not folder.is_dir() and folder.name == run:
        folder = named(run)
    if not folder.is_dir():
        raise InputError(f"run: no folder {run!r}; unlearnkit unlearn makes one")
    return folder


def check_free(out: Path, *, force: bool) -> None:
    """Refuse a place where something else stands.

    Args:
        out: Where a run's folder shall be.
        force: Whether an older run there may be replaced.

    Raises:
        InputError: If something stands there that must not be replaced.
    """
    if not out.exists():
        return
    ours = out.is_dir() and ((out / RECORD).is_file() or not any(out.iterdir()))
    if not ours:
        raise InputError(f"out: {str(out)!r} is there and is no run; choose another place")
    if not force:
        raise InputError(
            f"out: {str(out)!r} is there; choose another place, or replace it: --force"
        )


@contextmanager
def new_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder that takes its place when all went well, and vanishes otherwise.

    Args:
        out: Where the folder shall be.
        force: Whether an older run there is replaced.

    Yields:
        The temporary folder, beside the place.

    Raises:
        InputError: If the place cannot be written, or is taken.
    """
    check_free(out, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as e:
        raise InputError(
            f"out: cannot write {str(out)!r}: {e.strerror}; choose another place"
        ) from None
    try:
        yield part
        check_free(out, force=force)
        _put_in_place(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, out: Path) -> None:
    old = part.with_suffix(".old")
    try:
        part.chmod(0o755)
        if out.exists():
            out.rename(old)
        try:
            part.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as e:
        raise InputError(
            f"out: cannot write {str(out)!r}: {e.strerror}; choose another place"
        ) from None
    shutil.rmtree(old, ignore_errors=True)
