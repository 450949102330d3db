"""One run of a study: train or load, unlearn, audit, and keep what came of it."""

from __future__ import annotations

import platform
import time
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import torch

from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.strong.metric_specs import ENOUGH
from unlearnkit.auto.chooser import unlearn
from unlearnkit.cache import Cache
from unlearnkit.core.auto_method import AUTO
from unlearnkit.core.errors import InputError
from unlearnkit.core.version import __version__
from unlearnkit.localize.localizer import Localizer
from unlearnkit.report.schema import Report
from unlearnkit.report.store_rows import measured, spent
from unlearnkit.store import Measurement, Run, Store
from unlearnkit.studies.planning.problem import StudyProblems, method_of
from unlearnkit.studies.planning.run_spec import RunSpec


class CapturedError:
    """A context that keeps an error for the record, so that a study goes on after it.

    Only a study may do so: the error and its traceback go to the store, and the study ends as
    failed. Cancellation passes through.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False


@dataclass(frozen=True)
class Kept:
    """What came of a run, as the store keeps it."""

    run: Run
    numbers: tuple[Measurement, ...]
    facts: dict[str, str]

    def put(self, store: Store) -> None:
        """Keep it."""
        store.put(self.run, self.numbers, facts=self.facts)


class Worker:
    """Carries out the runs of a study in one process."""

    def __init__(self, cache: Cache, problems: StudyProblems | None = None) -> None:
        self.cache = cache
        self.problems = problems or StudyProblems()

    def carry_out(self, run: RunSpec) -> Kept:
        """Return what came of a run, to be kept: all its numbers, or a failure.

        Args:
            run: The run.

        Returns:
            A row for the store; an error is a row too.
        """
        row = _row(run)
        facts = _circumstances(run)
        caught = CapturedError()
        with caught:
            report, seconds = self._examine(run)
        if caught.error is not None:
            trace = "".join(traceback.format_exception(caught.error))
            told = str(caught.error) or type(caught.error).__name__
            failed = replace(row, status="failed", error=" ".join(told.split()))
            return Kept(failed, (), facts | {"traceback": trace})
        cost = report.spent
        done = replace(row, seconds=cost.seconds, forward=cost.forward, backward=cost.backward)
        numbers = (*measured(report), *spent(cost))
        if run.method == AUTO:
            facts["chosen"] = report.provenance.method
        return Kept(done, numbers, facts | _found(report) | {"audit_seconds": f"{seconds:.4f}"})

    def _examine(self, run: RunSpec) -> tuple[Report, float]:
        """Return the audit's report, and the seconds that the audit took."""
        problem, method = self.problems.hold(run), method_of(run)
        if problem.address(run, method) != run.key:
            raise InputError(
                f"study: {run.case} is no longer what it was when the study was planned; make it"
                " give the same rows and the same model each time"
            )
        model = problem.original(run.original_seed, self.cache).model
        truth = problem.oracles(run.oracles, self.cache)
        rt = problem.rt.fork(run.seed)
        mask = None if run.mask is None else Localizer.of(run.mask)
        done = unlearn(
            model, problem.case, problem.request, method, rt, mask=mask, cache=self.cache
        )
        clock = time.perf_counter()
        # The seed of the audit is the same for all, so that samples and oracles' values are too.
        report = audit(
            done,
            oracle=truth,
            tier=run.tier,
            models=run.models or ENOUGH,
            rt=problem.rt.fork(0),
            cache=self.cache,
        )
        return report, time.perf_counter() - clock


def cancelled(run: RunSpec) -> Kept:
    """Return what is kept of a run that was interrupted; it is carried out the next time."""
    return Kept(replace(_row(run), status="cancelled"), (), _circumstances(run))


def _row(run: RunSpec) -> Run:
    return Run(
        key=run.key,
        kind="study",
        case_name=run.case,
        request=run.request,
        method=run.method,
        settings=run.settings,
        seed=run.seed,
        status="done",
        started=datetime.now(UTC).isoformat(timespec="microseconds"),
        version=__version__,
    )


def _circumstances(run: RunSpec) -> dict[str, str]:
    masked = {} if run.mask is None else {"mask": run.mask.model_dump_json()}
    return masked | {
        "label": run.label,
        "original_seed": str(run.original_seed),
        "oracles": str(run.oracles),
        "tier": run.tier,
        "device": run.device,
        "precision": run.precision,
        "machine": platform.machine(),
        "torch": str(torch.__version__),
    }


def _found(report: Report) -> dict[str, str]:
    return _moved(report) | {
        "verdict": report.verdict,
        "verdicts": ", ".join(dict.fromkeys(f.verdict for f in report.findings)),
        "sentence": report.sentence,
        "original": report.provenance.original,
        "unlearned": report.provenance.unlearned,
    }


def _moved(report: Report) -> dict[str, str]:
    """Return the share of the scalars that might move, where a mask held the others."""
    if report.localized is None:
        return {}
    layers = report.localized.layers
    share = sum(x.chosen for x in layers) / sum(x.scalars for x in layers)
    return {"mask_share": f"{share:.6f}"}
