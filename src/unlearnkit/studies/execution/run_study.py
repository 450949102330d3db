"""Study execution: every open run, and how each ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from unlearnkit.cache import Cache
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import NullReporter, Reporter
from unlearnkit.store import Store
from unlearnkit.studies.execution.executors import executor
from unlearnkit.studies.execution.queue import PAUSE, RunQueue
from unlearnkit.studies.planning.plan import design_warnings
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.run_spec import RunSpec, is_finished
from unlearnkit.studies.planning.study_plan import StudyPlan, keep_plan, make_plan
from unlearnkit.studies.spec import Study


@dataclass(frozen=True)
class Outcome:
    """How many runs of a study ended how."""

    done: int
    """Done since the start, by this process or another."""

    failed: int
    """Failed, now or at an earlier time."""

    skipped: int
    """Done before."""


def run(
    study: Study,
    store: Store,
    cache: Cache,
    *,
    jobs: int | None = None,
    ray: str | None = None,
    retry: bool = False,
    reporter: Reporter | None = None,
    planned: StudyPlan | None = None,
    problems: StudyProblems | None = None,
) -> Outcome:
    """Carry out every run of a study that is not in the store yet.

    A run that fails is a row in the store with its error and traceback, and the study goes on. It
    is tried again only with ``retry``: most failures come from the method's settings.

    Args:
        study: The study.
        store: Where results are kept.
        cache: Where originals and oracles are kept.
        jobs: Local processes, one thread each, so that their number changes no result; 1 by
            default, with Ray as many as it has processors.
        ray: Address of a Ray cluster, or ``local``.
        retry: Whether runs that failed before are tried again.
        reporter: Receives how many runs are done, running and failed.
        planned: The plan; a new one, kept in the store, when None.
        problems: Problems of the study that this process has read.

    Returns:
        How many runs ended how.

    Raises:
        InputError: If a worker process died.
    """
    problems = problems or StudyProblems()
    workers = executor(jobs, ray, problems)
    if planned is None:
        planned = make_plan(study, problems)
        keep_plan(study, store, planned)
    runs = planned.runs
    heard = reporter or NullReporter()
    before = store.statuses("study")
    failures = {r.key: before[r.key][1] for r in runs if _how(before, r) == "failed"}
    line = RunQueue(runs, failures if retry else {})
    teller = _Teller(heard, store, line)
    workers.work(line, store, cache, lambda busy: teller.tell(busy, workers.jobs))
    after = store.statuses("study")
    left = sum(not is_finished(after.get(r.key), line.again.get(r.key)) for r in runs)
    if left:
        raise InputError(
            f"study: {left} of {len(runs)} runs are not finished, because worker processes died;"
            " run the study again, with fewer jobs if memory is short"
        )
    teller.tell(0, workers.jobs, at_once=True)
    for warning in design_warnings(runs, store):
        heard.note(warning)
    skipped = sum(_how(before, r) == "done" for r in runs)
    failed = sum(_how(after, r) == "failed" for r in runs)
    return Outcome(done=len(runs) - failed - skipped, failed=failed, skipped=skipped)


def _how(ended: Mapping[str, tuple[str, str]], run: RunSpec) -> str | None:
    found = ended.get(run.key)
    return None if found is None else found[0]


@dataclass
class _Teller:
    """Says how a study comes along, not more often than anybody can read."""

    reporter: Reporter
    store: Store
    line: RunQueue
    last: float = field(default=0.0)

    def tell(self, working: int, jobs: int, *, at_once: bool = False) -> None:
        """Report runs finished, running and failed."""
        now = time.monotonic()
        if now < self.last + PAUSE and not at_once:
            return
        self.last = now
        ended, runs = self.store.statuses("study"), self.line.runs
        again = self.line.again
        over = [_how(ended, r) for r in runs if is_finished(ended.get(r.key), again.get(r.key))]
        self.reporter.progress("runs", len(over), len(runs))
        self.reporter.progress("running", min(working, len(runs) - len(over)), jobs)
        if failed := over.count("failed"):
            self.reporter.progress("failed", failed, len(runs))
