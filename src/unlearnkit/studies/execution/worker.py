"""Worker: carries out one run of a study and returns its record."""

from __future__ import annotations

import platform
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auto.chooser import unlearn
from unlearnkit.cache import Cache
from unlearnkit.core.auto_method import AUTO
from unlearnkit.core.errors import InputError
from unlearnkit.core.version import __version__
from unlearnkit.localize.localizer import Localizer
from unlearnkit.report.report import Report
from unlearnkit.report.store_rows import cost_measurements, report_measurements
from unlearnkit.store import Measurement, Run, Store
from unlearnkit.studies.planning.problem import StudyProblems, method_of
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.planning.shared_models import ModelBatch


@dataclass(frozen=True)
class RunRecord:
    """What came of a run, as the store keeps it."""

    run: Run
    measurements: tuple[Measurement, ...]
    facts: dict[str, str]

    def save(self, store: Store) -> None:
        """Keep it."""
        store.save_run(self.run, self.measurements, facts=self.facts)


class Worker:
    """Carries out the runs of a study in one process."""

    def __init__(self, cache: Cache, problems: StudyProblems | None = None) -> None:
        self.cache = cache
        self.problems = problems or StudyProblems()

    def carry_out(self, run: RunSpec) -> RunRecord:
        """Return the record of a run: all its numbers, or its error."""
        row, facts = _row(run), _circumstances(run)
        try:
            report, seconds = self._examine(run)
        except Exception as e:  # noqa: BLE001  # the error goes to the store, and the study goes on
            text = " ".join((str(e) or type(e).__name__).split())
            trace = "".join(traceback.format_exception(e))
            return RunRecord(
                replace(row, status="failed", error=text), (), facts | {"traceback": trace}
            )
        cost = report.cost
        done = replace(row, seconds=cost.seconds, forward=cost.forward, backward=cost.backward)
        numbers = (*report_measurements(report), *cost_measurements(cost))
        if run.method == AUTO:
            facts["chosen"] = report.provenance.method
        facts |= _found(report) | {"audit_seconds": f"{seconds:.4f}"}
        return RunRecord(done, numbers, facts)

    def train(self, batch: ModelBatch) -> None:
        """Train shared models; what cannot be trained fails again in the run that needs it."""
        with suppress(Exception):
            batch.train(self.problems, self.cache)

    def _examine(self, run: RunSpec) -> tuple[Report, float]:
        """Return the audit's report, and the seconds that the audit took."""
        problem, method = self.problems.hold(run), method_of(run)
        if problem.run_key_of(run, method) != run.key:
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
            memory=problem.memory,
            placebo=False,
            recipe_check=False,  # the originals are those of the recipe
        )
        return report, time.perf_counter() - clock


def cancelled_record(run: RunSpec) -> RunRecord:
    """Return what is kept of a run that was interrupted; it is carried out the next time."""
    return RunRecord(replace(_row(run), status="cancelled"), (), _circumstances(run))


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
    if report.mask is None:
        return {}
    layers = report.mask.layers
    share = sum(x.chosen for x in layers) / sum(x.scalars for x in layers)
    return {"mask_share": f"{share:.6f}"}
