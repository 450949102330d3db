"""Run folder: weights, record and report, written whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from unlearnkit.auto.selection import Selection
from unlearnkit.core.checked import FrozenModel, Record
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_writable, read_text
from unlearnkit.core.ranks import is_first
from unlearnkit.core.text import one_line
from unlearnkit.job import Job

RECORD, MODEL, ORIGINAL = "run.json", "model.safetensors", "original.safetensors"
MASK, MOMENTS = "mask.safetensors", "moments.safetensors"
RUNS = Path("runs")


class ContinuedRun(FrozenModel):
    """The run whose model a later run changed; the requests are in the later run's job."""

    record: str
    """Digest of all that its record says, and so of the runs before it."""

    requests: int = Field(ge=1)
    """Requests answered up to it, it included."""

    rows: int = Field(ge=0)
    """Rows that these requests removed; 0 where the case has no rows."""


class RunFolderRecord(Record):
    """Everything needed to run a run again, and what it was."""

    later_fields = frozenset({"continues"})

    schema_version: Literal[1, 2] = 2
    """1 had no digests of the record itself, nor of ``case`` and ``forget``."""

    job: Job
    key: str
    """Digest of every input."""

    made: str
    """UTC, ISO 8601."""

    versions: dict[str, str]
    digests: dict[str, str]
    """Of the weights ``original`` and ``unlearned``, of the input ``moments`` for the unlearned
    model where the run read any and rows left, of what the case gave (its rows by part,
    ``owners``, ``recipe``, ``task``, ``architecture``), of the rows to ``forget``, and of all else
    in this ``record``."""

    seconds: float = Field(ge=0, allow_inf_nan=False)
    forward: int = Field(ge=0)
    backward: int = Field(ge=0)
    peak_bytes: int = Field(ge=0)
    notes: tuple[str, ...] = ()
    mask: dict[str, Any] | None = None
    """How the mask was found and how large it is; None where everything might move."""

    auto: Selection | None = None
    """What was tried and why, where ``auto`` chose; the job then names the method that it chose."""

    continues: ContinuedRun | None = None
    """The run from whose model this one went on; None where it went on from none."""

    @classmethod
    def read(cls, folder: Path) -> RunFolderRecord:
        """Return the record in a run folder; a damaged, edited or newer one is an error."""
        path = folder / RECORD
        try:
            found = cls.model_validate_json(read_text(path, "run"))
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its form"
            raise InputError(
                f"run: {str(path)!r} is no record of a run that this unlearnkit reads:"
                f" {e.error_count()} fields are wrong, the first is {where}: {first['msg']}"
            ) from None
        if found.schema_version > 1 and found.digests.get("record") != found.own_digest():
            raise InputError(
                f"run: {str(path)!r} was changed after the run; run it again: unlearnkit unlearn"
                f" --config {path} --out another"
            )
        return found

    def own_digest(self) -> str:
        """Return the digest of all that the record says, but for this digest."""
        content = json.loads(self.model_dump_json())
        content["digests"].pop("record", None)
        return digest(content)

    def sealed(self) -> RunFolderRecord:
        """Return the record with its own digest."""
        return self.model_copy(update={"digests": {**self.digests, "record": self.own_digest()}})


def run_folder(name: str) -> Path:
    """Return ``runs/NAME``; a name that could be a path is an error."""
    if not re.fullmatch(r"\w[\w .,=+-]*", name) or name.endswith("."):
        raise InputError(
            f"name: letters, digits, spaces and .,=+- only, a letter or digit first, got {name!r};"
            " use --out for a path"
        )
    return RUNS / name


def find_run_folder(run: str) -> Path:
    """Return an existing run folder, given its path or its name in ``runs``."""
    folder = Path(run)
    if not folder.is_dir() and folder.name == run:
        folder = run_folder(run)
    if not folder.is_dir():
        raise InputError(f"run: no folder {run!r}; unlearnkit unlearn makes one")
    return folder


def describe_run(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the record of a run as facts, JSON-able, and as a page; a damaged one is an error."""
    record = RunFolderRecord.read(folder)
    job = record.job
    earlier = [job.model_copy(update={"forget": words}).request_text() for words in job.after]
    lines = [
        f"# Run {one_line(str(folder), 80)}",
        "",
        f"- Case: {one_line(job.case, 80)}",
        *([f"- Earlier requests: {'; '.join(earlier)}"] if earlier else []),
        f"- Request: {job.request_text()}",
        f"- Method: {job.method}, seed {job.seed}",
        f"- Made: {record.made}, {record.seconds:.2f} seconds,"
        f" {record.forward:,} rows forward, {record.backward:,} backward",
        f"- Original model: {record.digests.get('original', '')}",
        f"- Unlearned model: {record.digests.get('unlearned', '')}",
    ]
    if record.continues is not None:
        lines.append(
            f"- Continues: record {record.continues.record}, {record.continues.rows:,} rows removed"
            " before"
        )
    lines += [f"- Note: {one_line(note, 200)}" for note in record.notes]
    return record.model_dump(mode="json"), "\n".join(lines) + "\n"


def check_free(out: Path, *, force: bool) -> None:
    """Refuse a place that holds something else, or an older run without ``force``."""
    if out.is_symlink():
        raise InputError(f"out: {str(out)!r} is a link; name the folder itself: {out.resolve()}")
    if not out.exists():
        check_writable(out, "out")
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
    """Yield a temporary folder that replaces ``out`` on success and vanishes on failure.

    Left-over temporary folders of dead processes are removed first.

    Yields:
        The temporary folder, next to ``out``.

    Raises:
        InputError: If the place cannot be written, or is taken.
    """
    if not is_first():  # of ranks, which run together: the first alone writes
        with tempfile.TemporaryDirectory() as unused:
            yield Path(unused)
        return
    sweep(out, all_unknown=force)
    check_free(out, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lead = f".{out.name}.{_owner()}."
        part = Path(tempfile.mkdtemp(prefix=lead, suffix=_PART, dir=out.parent))
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


def sweep(out: Path, *, all_unknown: bool = False) -> None:
    """Remove temporary folders of dead processes; a run that one had moved aside is put back.

    Args:
        out: The place.
        all_unknown: Whether to remove those of other machines and versions as well.
    """
    for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
        parts = re.fullmatch(
            r"(?:([^.]+)-(\d+)\.)?\w+(\.part|\.old)", left.name[len(out.name) + 2 :]
        )
        if parts is None or not left.is_dir() or left.is_symlink():
            continue
        host, pid, kind = parts.groups()
        here = host == _host()
        if (here and _alive(int(pid))) or not (here or all_unknown):
            continue
        if kind == _OLD and not out.exists() and (left / RECORD).is_file():
            left.rename(out)
        else:
            shutil.rmtree(left, ignore_errors=True)


_PART, _OLD = ".part", ".old"


def _host() -> str:
    return re.sub(r"[^\w]", "_", socket.gethostname()) or "here"


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there, to ask is to end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is there and is another user's
        return True
    return True


def _put_in_place(part: Path, out: Path) -> None:
    old = part.with_suffix(_OLD)
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
