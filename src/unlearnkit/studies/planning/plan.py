"""Cost of a study: runs and models that are left, and their time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from unlearnkit.auditing.remarks import format_duration
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import ModelSelectedRequest
from unlearnkit.catalog import cases
from unlearnkit.core.digest import digest
from unlearnkit.store import Store
from unlearnkit.studies.planning.expand import runs_of
from unlearnkit.studies.planning.overlap import check_no_overlap
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.run_spec import WEIGHTS, RunSpec, is_finished
from unlearnkit.studies.planning.shared_models import SharedModel, models
from unlearnkit.studies.spec import Study
from unlearnkit.train.training_guard import TrainingForbiddenError, no_training


@dataclass(frozen=True)
class RequiredModel:
    """A model that a study needs."""

    kind: str
    """``original`` or ``oracle``."""

    case: str
    request: str
    """Of an oracle; empty for an original."""

    seed: int
    cached: bool
    seconds: float | None
    """What its training is going to take; 0 when it is cached, None when nothing like it was
    measured here."""


@dataclass(frozen=True)
class UnknownRows:
    """A request whose rows are known only once models are trained; its runs are not counted."""

    case: str
    request: str
    models: int | None
    """How many models must be trained first; None where a case of the user's own trains them."""

    @property
    def words(self) -> str:
        """Return the request and what it needs."""
        count = "trained models" if self.models is None else f"{self.models} trained model"
        many = "s" if self.models is not None and self.models > 1 else ""
        return f"{self.case} {self.request} needs {count}{many} to know its rows"


@dataclass(frozen=True)
class StudyCost:
    """What is there already, and what is still to do."""

    runs: tuple[RunSpec, ...]
    done: int
    failed: int
    todo: tuple[RunSpec, ...]
    """Runs that are neither done nor failed."""

    models: tuple[RequiredModel, ...]
    """Models that these need, cached or not."""

    seconds: float
    """Work of everything whose cost was measured before, in seconds of one process."""

    unmeasured: int
    """How many runs and models the seconds leave out."""

    warnings: tuple[str, ...] = ()
    unknown: tuple[UnknownRows, ...] = ()
    """Requests whose runs are in none of the above, since their rows are not known yet."""


def plan(study: Study, store: Store, cache: Cache) -> StudyCost:
    """Return what a study will take; nothing is trained or run.

    Times come from earlier work: training from models of the same architecture, device and
    precision in the cache, by rows; a run from runs of the same method on the same case in the
    store, or of any method on that case. What has no precedent is counted in ``unmeasured``.

    Returns:
        Runs, models and time. A request whose rows are known only after training is in ``unknown``.
    """
    problems = StudyProblems()
    runs, unknown = _runs(study, problems)
    ended = store.statuses("study")
    todo = tuple(r for r in runs if not is_finished(ended.get(r.key)))
    rates, there = _rates(cache)
    needs = tuple(_need(m, rates, there) for m in models(todo, problems))
    times = _times(store, todo)
    guesses = [*(n.seconds for n in needs), *(_guess(r, times) for r in todo)]
    known = [g for g in guesses if g is not None]
    how = [ended[r.key][0] for r in runs if r.key in ended]
    return StudyCost(
        runs=runs,
        done=how.count("done"),
        failed=how.count("failed"),
        todo=todo,
        models=needs,
        seconds=sum(known),
        unmeasured=len(guesses) - len(known),
        warnings=tuple(design_warnings(runs, store)),
        unknown=unknown,
    )


def _runs(
    study: Study, problems: StudyProblems
) -> tuple[tuple[RunSpec, ...], tuple[UnknownRows, ...]]:
    """Return the runs that are known without training, and the requests whose runs are not."""
    runs: list[RunSpec] = []
    unknown: list[UnknownRows] = []
    with no_training():
        for case in study.cases:
            with suppress(TrainingForbiddenError):  # not known to overlap before rows are known
                if study.tune is not None:
                    check_no_overlap(study, case, problems)
            for request in study.requests[case]:
                try:
                    runs += runs_of(study, case, request, problems)
                except TrainingForbiddenError:
                    unknown.append(UnknownRows(case, request, _models_of(case, request)))
    return tuple(runs), tuple(unknown)


def _models_of(case: str, request: str) -> int | None:
    known = cases().get(case)
    found = None if known is None else known.requests.get(request)
    return found.models if isinstance(found, ModelSelectedRequest) else None


def design_warnings(runs: Iterable[RunSpec], store: Store) -> list[str]:
    """Return a warning for each method that gives one model for all seeds under ``REUSE``.

    All seeds of ``REUSE`` start from one original. A method without randomness then has a spread
    of 0 by construction. It is recognised by equal weights from different seeds.

    Returns:
        Sentences; none under ``FULL``.
    """
    reused = [run for run in runs if run.design == "REUSE"]
    digests = store.fact_by_run([run.key for run in reused], WEIGHTS)
    weights: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for run in reused:
        if run.key in digests:
            weights[run.label, run.case, run.request].append(digests[run.key])
    repeated: dict[str, list[str]] = defaultdict(list)
    for (label, case, request), of_seeds in weights.items():
        if len(set(of_seeds)) < len(of_seeds):
            repeated[label].append(f"{case} {request}")
    return [
        f"REUSE: {label} gave the same model for different seeds ({', '.join(where)}); it draws"
        " nothing, so its spread says nothing: use design FULL"
        for label, where in repeated.items()
    ]


_Kind = tuple[str, str, str]
"""Architecture, device, precision."""


def _kind(key: Mapping[str, object]) -> _Kind:
    return str(key.get("architecture")), str(key.get("device")), str(key.get("precision"))


def _rates(cache: Cache) -> tuple[dict[_Kind, float], set[str]]:
    """Return the seconds of a row's work by kind of model, and the names of what is cached."""
    seconds: dict[_Kind, float] = defaultdict(float)
    work: dict[_Kind, float] = defaultdict(float)
    names = set()
    for entry in cache.entries():
        names.add(entry.name)
        if entry.key.get("kind") in ("original", "oracle") and entry.facts:
            kind, facts = _kind(entry.key), entry.facts
            seconds[kind] += facts["seconds"]
            work[kind] += facts["forward"] + 2 * facts["backward"]
    return {kind: seconds[kind] / w for kind, w in work.items() if w}, names


def _need(model: SharedModel, rates: Mapping[_Kind, float], there: set[str]) -> RequiredModel:
    cached = digest(model.key) in there
    rate = 0.0 if cached else rates.get(_kind(model.key))
    return RequiredModel(
        kind=model.kind,
        case=model.run.case,
        request=model.run.request if model.kind == "oracle" else "",
        seed=model.seed,
        cached=cached,
        seconds=None if rate is None else rate * model.work,
    )


def _times(store: Store, todo: Sequence[RunSpec]) -> dict[tuple[str, str], float]:
    """Return the mean seconds of unlearning and audit, by case and method; "" is any method."""
    wanted = {r.case for r in todo}
    done = [r for r in store.runs("study") if r.case_name in wanted and r.status == "done"]
    audits = store.fact_by_run([r.key for r in done], "audit_seconds")
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in done:
        took = (run.seconds or 0.0) + float(audits.get(run.key, 0))
        for method in (run.method, ""):
            found[run.case_name, method].append(took)
    return {key: fmean(times) for key, times in found.items()}


def _guess(run: RunSpec, times: Mapping[tuple[str, str], float]) -> float | None:
    return times.get((run.case, run.method), times.get((run.case, "")))


def summary(found: StudyCost, jobs: int = 1) -> dict[str, str]:
    """Return the plan as words, by what they say."""
    return {
        "runs": f"{len(found.runs)}: {len(found.todo)} to do, {found.done} done,"
        f" {found.failed} failed",
        "originals": _counted(n for n in found.models if n.kind == "original"),
        "oracles": _counted(n for n in found.models if n.kind == "oracle"),
        "time": _time(found, jobs),
        **({"rows unknown": "; ".join(u.words for u in found.unknown)} if found.unknown else {}),
    }


def _counted(needs: Iterable[RequiredModel]) -> str:
    cached = [n.cached for n in needs]
    return f"{cached.count(False)} to train, {cached.count(True)} cached"


def _time(found: StudyCost, jobs: int) -> str:
    share = "" if jobs == 1 else f" with {jobs} jobs"
    open_ = len(found.todo) + sum(not n.cached for n in found.models)
    if not open_:
        return "unknown: rows are not known yet" if found.unknown else "none"
    if found.unmeasured == open_:
        return "unknown: nothing like it was measured here yet"
    text = f"about {format_duration(found.seconds / jobs)}{share}"
    if found.unmeasured:
        text += f", and {found.unmeasured} runs and models that were never measured here"
    return text
