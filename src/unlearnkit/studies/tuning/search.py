"""Hyper-parameter search: the best settings of each method of a study.

A trial is a few runs of a study, one for each forget set and seed of the search, and they are kept
as such: whatever interrupts the search, running it again proposes the same settings in the same
order and finds their runs in the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from unlearnkit.cache import Cache
from unlearnkit.catalog import method as make
from unlearnkit.catalog import methods
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.runtime import NullReporter, Reporter
from unlearnkit.core.search_space import Categorical, SearchDimension, search_space
from unlearnkit.core.version import __version__
from unlearnkit.job import set_dotted
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.planning.expand import expand, search_key, tunable
from unlearnkit.studies.planning.objective import METRICS, WORDS, TrialScore, score
from unlearnkit.studies.planning.overlap import check_no_overlap
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.study_plan import StudyPlan
from unlearnkit.studies.planning.tuned_settings import (
    MethodSettings,
    SettingChange,
    TunedSettings,
    TuningProvenance,
    tuned_settings_path,
)
from unlearnkit.studies.spec import MethodEntry, Study, TrialStudy
from unlearnkit.studies.table.load_results import Result, read

_OVER = 1e6
"""Added for the sampler, which looks at ranks alone, to what settings over the budget reach."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what came of it."""

    values: Mapping[str, object]
    """By dotted name."""

    score: TrialScore | None
    error: str = ""

    def facts(self) -> dict[str, object]:
        """Return all of it, JSON-able."""
        parts = None if self.score is None else self.score.model_dump()
        reached = None if self.score is None else self.score.value
        return {
            "values": dict(self.values),
            "objective": reached,
            "parts": parts,
            "error": self.error,
        }


@dataclass(frozen=True)
class TuningResult:
    """The search of one method on one case."""

    case: str
    method: str
    trials: tuple[Trial, ...]
    """The first has the method's own settings."""

    best: Trial
    """The best that keeps within the budget; the first where there is none."""

    recipe: TunedSettings
    path: Path

    @property
    def default(self) -> Trial:
        """Return the trial of the method's own settings."""
        return self.trials[0]

    @property
    def failed_trials(self) -> int:
        """Return how many trials ended with an error."""
        return sum(t.score is None for t in self.trials)

    def facts(self) -> dict[str, object]:
        """Return all of it, JSON-able."""
        trials = [t.facts() for t in self.trials]
        return {"path": str(self.path), **self.recipe.model_dump(mode="json"), "trials": trials}


def tune(
    study: Study,
    store: Store,
    cache: Cache,
    *,
    jobs: int = 1,
    retry: bool = False,
    reporter: Reporter | None = None,
) -> list[TuningResult]:
    """Search settings for each method of a study and write the best as YAML files.

    Every method has the same number of trials, the first with its default settings. A trial whose
    runs fail is a trial with an error.

    Args:
        study: With a ``tune`` block.
        store: Where the runs of trials are kept.
        cache: Where originals and oracles are kept.
        jobs: Local processes that work on the trials of one turn, one trial a method.
        retry: Whether runs that failed before are tried again.
        reporter: Receives the number of finished turns.

    Returns:
        The result of each case and method.

    Raises:
        InputError: If the study has no ``tune`` block, or no method to search.
    """
    if study.tune is None:
        raise InputError("study: nothing to tune; add a tune block with requests, seeds and trials")
    optuna = _optuna()
    problems = StudyProblems()
    found = []
    for case in study.cases:
        shared = check_no_overlap(study, case, problems)
        names = tunable(study, case, problems)
        searches = {m: _Search(methods()[m], study.tune.seed, optuna) for m in names}
        if not searches:
            raise InputError(f"study: tune: no method of {case} is named at its own settings alone")
        for turn in range(study.tune.trials):
            (reporter or NullReporter()).progress(f"tuning {case}", turn, study.tune.trials)
            _turn(study, case, searches, store, cache, problems, jobs=jobs, retry=retry)
        (reporter or NullReporter()).progress(
            f"tuning {case}", study.tune.trials, study.tune.trials
        )
        found += [
            _keep(study, case, s, shared, problems, str(optuna.__version__))
            for s in searches.values()
        ]
    return found


def _optuna() -> ModuleType:
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise UnsupportedError("tune: needs Optuna; pip install 'unlearnkit[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _Search:
    """One method's search by Optuna's ask and tell."""

    def __init__(self, method: type[Method], seed: int, optuna: ModuleType) -> None:
        self.method, self.space, self.trials = method, search_space(method), list[Trial]()
        self._optuna = optuna
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._study.enqueue_trial({key: d.default for key, d in self.space.items()})
        self._ranges = {key: _distribution(d, optuna) for key, d in self.space.items()}
        self._trial: Any = None
        self._values: dict[str, object] = {}

    def ask(self) -> dict[str, object]:
        """Return the next values to try, by dotted name."""
        self._trial = self._study.ask(self._ranges)
        self._values = {k: _rounded(v, self.space[k]) for k, v in self._trial.params.items()}
        if not self.trials:
            self._values = {key: d.default for key, d in self.space.items()}
        return self._values

    def tell(self, found: TrialScore | None, error: str, budget: float) -> None:
        """Record the result of the last values."""
        self.trials.append(Trial(self._values, found, error))
        if found is None:
            self._study.tell(self._trial, state=self._optuna.trial.TrialState.FAIL)
            return
        over = _OVER + found.cost if found.exceeds(budget) else 0.0
        self._study.tell(self._trial, found.value + over)

    def best(self, budget: float) -> Trial:
        """Return the best trial within the budget, the earliest of equals."""
        within = [t for t in self.trials if t.score is not None and not t.score.exceeds(budget)]
        return min(within, key=_value, default=self.trials[0])

    def build(self, values: Mapping[str, object]) -> Method:
        """Return the method with these values."""
        nested: dict[str, Any] = {}
        for key, value in values.items():
            set_dotted(nested, key, value, who=self.method.id)
        return make(self.method.id, None, **nested)


def _value(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score.value


def _reached(trial: Trial) -> float | None:
    return None if trial.score is None else round(trial.score.value, 6)


def _distribution(d: SearchDimension, optuna: ModuleType) -> object:
    given, kinds = d.search, optuna.distributions
    if isinstance(given, Categorical):
        return kinds.CategoricalDistribution(given.values)
    if d.whole:
        return kinds.IntDistribution(int(given.low), int(given.high), log=given.log)
    return kinds.FloatDistribution(given.low, given.high, log=given.log)


def _rounded(value: object, d: SearchDimension) -> object:
    """Return a value with the three digits that a person would write, still within its range."""
    if not isinstance(value, float) or isinstance(d.search, Categorical):
        return value
    return min(max(float(f"{value:.3g}"), d.search.low), d.search.high)


def _turn(
    study: Study,
    case: str,
    searches: Mapping[str, _Search],
    store: Store,
    cache: Cache,
    problems: StudyProblems,
    *,
    jobs: int,
    retry: bool,
) -> None:
    """Carry out one trial of each method."""
    assert study.tune is not None
    tried: list[MethodEntry] = []
    errors: dict[str, str] = {}
    for name, search in searches.items():
        try:
            method = search.build(search.ask())
        except UnlearnkitError as e:
            errors[name] = str(e)
            continue
        tried.append(MethodEntry(method=name, settings=method.model_dump(mode="json")))
    results: dict[str, list[Result]] = defaultdict(list)
    if tried:
        changed = {
            "name": f"{study.name} tuning",
            "cases": (case,),
            "requests": {case: study.tune.requests[case]},
            "methods": tuple(tried),
            "seeds": study.tune.seeds,
            "design": "FULL",
            "tune": None,
        }
        part = TrialStudy.model_construct(**{**dict(study), **changed})
        plan = StudyPlan(expand(part, problems), {})
        run(part, store, cache, jobs=jobs, retry=retry, planned=plan, problems=problems)
        for r in read(plan.runs, store, METRICS):
            results[r.spec.method].append(r)
    for name, search in searches.items():
        if name in errors:
            search.tell(None, errors[name], study.tune.budget)
        else:
            search.tell(*_judged(results[name]), study.tune.budget)


def _judged(results: list[Result]) -> tuple[TrialScore | None, str]:
    """Return the mean score of a trial's runs, or the first error among them."""
    try:
        failed = next((r for r in results if r.status != "done"), None)
        if failed is not None:
            return None, failed.error
        return TrialScore.mean(score(r.values) for r in results), ""
    except InputError as e:
        return None, str(e)


def _keep(
    study: Study,
    case: str,
    search: _Search,
    shared: Mapping[str, int],
    problems: StudyProblems,
    optuna: str,
) -> TuningResult:
    """Write a recipe."""
    tune, name = study.tune, search.method.id
    assert tune is not None
    first, best = search.trials[0], search.best(tune.budget)
    recipe = TunedSettings(
        job=MethodSettings(method=name, settings=search.build(best.values).model_dump(mode="json")),
        found=TuningProvenance(
            study=study.name,
            case=case,
            requests=tune.requests[case],
            seeds=tune.seeds,
            oracles=study.oracles,
            trials=len(search.trials),
            failed=sum(t.score is None for t in search.trials),
            budget=tune.budget,
            objective=WORDS,
            reached={"default": _reached(first), "tuned": _reached(best)},
            default=first.score,
            tuned=best.score,
            changes={
                key: SettingChange(default=first.values[key], found=value, searched=str(d.search))
                for (key, value), d in zip(best.values.items(), search.space.values(), strict=True)
            },
            shared_rows=dict(shared),
            search=search_key(study, case, name, problems),
            versions={
                "unlearnkit": __version__,
                "torch": str(torch.__version__),
                "optuna": optuna,
            },
        ),
    )
    path = recipe.save(tuned_settings_path(tune.folder, study.name, case, name))
    return TuningResult(case, name, tuple(search.trials), best, recipe, path)
