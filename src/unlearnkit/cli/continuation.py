"""Continuation: a further request on the model that a run has left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unlearnkit.cli.run_checks import compare_case, recorded_weights
from unlearnkit.cli.run_folder import (
    MODEL,
    MOMENTS,
    ORIGINAL,
    RECORD,
    ContinuedRun,
    RunFolderRecord,
)
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.job import Job, check_trusted
from unlearnkit.linalg.input_moments import InputMoments

WHO = "unlearn --then"


@dataclass(frozen=True)
class Continuation:
    """What a run goes on from."""

    run: ContinuedRun
    model: nn.Module
    """The model that the run before has left."""

    moments: Path | None
    """The input moments that it has left, where the job goes on from these too."""

    digest: str
    """Of these moments, as the record says."""

    def check_moments(self, case: Case) -> None:
        """Refuse input moments that were changed after the run that wrote them."""
        kept = case.input_moments
        if self.moments is None or not isinstance(kept, InputMoments):
            return
        if kept.digest() != self.digest:
            raise InputError(
                f"{WHO}: {str(self.moments)!r} was changed after the run; measure them anew:"
                " unlearnkit moments"
            )


def next_job(folder: Path, *, case: str | None = None, trust: bool = False) -> dict[str, Any]:
    """Return the fields of a job that goes on from a run, all but its request.

    Method, settings, seed, device, precision, the way a mask is found and the projection are those
    of the run, and so are the input moments that it has left.

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
    words |= {"mask": job.mask} if isinstance(job.mask, dict) else {}
    words |= {} if job.projection is None else {"projection": job.projection}
    left = folder / MOMENTS
    return words | ({"moments": str(left)} if left.is_file() else {})


def check_continued(job: Job, out: Path, rt: Runtime, made: Case) -> Continuation | None:
    """Return what a job goes on from, after checks; None where it is not in a run folder.

    Args:
        job: The job.
        out: Where its own run will be.
        rt: Where to run.
        made: The case of both, as it was before any request.

    Returns:
        The run, with its model, which is read once.

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
    recorded_weights(case, rt, folder / ORIGINAL, record.digests["original"], WHO)
    model = recorded_weights(case, rt, folder / MODEL, record.digests["unlearned"], WHO)
    gone = case.partition(request).forget
    earlier = 0 if record.continues is None else record.continues.rows
    run = ContinuedRun(
        record=record.own_digest(),
        requests=len(job.after),
        rows=earlier + (0 if gone is None else len(gone)),
    )
    left = folder / MOMENTS
    same = job.moments is not None and Path(job.moments) == left
    return Continuation(run, model, left if same else None, record.digests.get("moments", ""))
