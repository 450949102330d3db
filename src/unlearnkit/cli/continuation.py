"""Continuation: a further request on the model that a run has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearnkit.cli.run_checks import compare_case, recorded_weights
from unlearnkit.cli.run_folder import MODEL, ORIGINAL, RECORD, ContinuedRun, RunFolderRecord
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.job import Job, check_trusted

WHO = "unlearn --then"


def next_job(folder: Path, *, case: str | None = None, trust: bool = False) -> dict[str, Any]:
    """Return the fields of a job that goes on from a run, all but its request.

    Method, settings, seed, device, precision and the way a mask is found are those of the run.

    Args:
        folder: The run's folder.
        case: Replaces the case that the record names.
        trust: Whether the code that the record names may be imported.

    Returns:
        The fields, unchecked, as ``read_job`` returns them.

    Raises:
        InputError: If the record is damaged, names code, or its model failed its audit.
        UnsupportedError: If the run's case was made from parts.
    """
    record = RunFolderRecord.read(folder)
    job = record.job
    if case is None and not trust:
        check_trusted(job.case, WHO)
    if record.auto is not None and not record.auto.passed:
        raise InputError(
            f"{WHO}: the model in {str(folder)!r} failed its audit; run it again with another"
            " method and go on from there"
        )
    if job.forget is None:
        raise UnsupportedError(
            f"{WHO}: the case of {str(folder)!r} was made from parts, which say what to forget;"
            " build it with train= to answer one request after another"
        )
    words = job.model_dump(mode="json", include={"method", "settings", "seed", "device"})
    words |= {"case": case or job.case, "precision": job.precision}
    words |= {"after": [*job.after, job.forget], "model": str(folder / MODEL)}
    return words | ({"mask": job.mask} if isinstance(job.mask, dict) else {})


def check_continued(job: Job, out: Path, rt: Runtime, made: Case) -> ContinuedRun | None:
    """Return the run that a job goes on from, after checks; None where it is not in a run folder.

    Args:
        job: The job.
        out: Where its own run will be.
        rt: Where to run.
        made: The case of both, as it was before any request.

    Returns:
        What the new record says of the run.

    Raises:
        InputError: If the record does not match its files, its case or the job, or would be
            replaced.
    """
    if not job.after or job.model is None or Path(job.model).name != MODEL:
        return None
    folder = Path(job.model).parent
    if not (folder / RECORD).is_file():
        return None
    if out.resolve() == folder.resolve():
        raise InputError(
            f"{WHO}: --out {str(out)!r} is the run that is continued; choose another place"
        )
    record = RunFolderRecord.read(folder)
    if (*record.job.after, record.job.forget) != job.after:
        raise InputError(
            f"{WHO}: the run in {str(folder)!r} answered other requests than the job names before"
            " its own; name the run again with --then"
        )
    case, request = record.job.model_copy(update={"case": job.case}).resolve(made=made)
    compare_case(record, case, request, WHO)
    for name, who in ((MODEL, "unlearned"), (ORIGINAL, "original")):
        recorded_weights(case, rt, folder / name, record.digests[who], WHO)
    gone = case.partition(request).forget
    earlier = 0 if record.continues is None else record.continues.rows
    return ContinuedRun(
        record=record.own_digest(),
        requests=len(job.after),
        rows=earlier + (0 if gone is None else len(gone)),
    )
