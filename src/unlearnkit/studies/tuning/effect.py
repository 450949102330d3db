"""Tuning effect: tuned against default settings, on unseen forget sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unlearnkit.core.errors import InputError
from unlearnkit.report import phrases as w
from unlearnkit.stats.paired_test import ENOUGH_FOR_INTERVALS, paired
from unlearnkit.store import Store
from unlearnkit.studies.planning.objective import METRICS, TrialScore, score
from unlearnkit.studies.planning.run_spec import TUNED, RunSpec
from unlearnkit.studies.planning.study_plan import StudyPlan, load_or_make_plan
from unlearnkit.studies.spec import Study
from unlearnkit.studies.table.load_results import Result, read

Word = Literal["helped", "harmed", "no difference shown", "default kept", "not run"]
"""What tuning did. ``default kept``: the search found nothing better than the method's own
settings. ``not run``: there are no two runs to compare yet."""


@dataclass(frozen=True)
class TuningEffect:
    """One method on one forget set of the study, with its own and with the found settings."""

    case: str
    request: str
    method: str
    word: Word = "not run"
    seeds: int = 0
    """On which both are done and scored."""

    default: TrialScore | None = None
    tuned: TrialScore | None = None
    """Means over these seeds."""

    low: float | None = None
    high: float | None = None
    """Student's 95 % interval of tuned minus default, over seeds."""


def tuning_effect(
    study: Study, store: Store, planned: StudyPlan | None = None
) -> list[TuningEffect]:
    """Return the effect of tuning on each method and forget set of the study."""
    if study.tune is None:
        raise InputError("study: nothing is tuned; it has no tune block")
    plan = planned or load_or_make_plan(study, store)
    return list(_compared(read(plan.runs, store, METRICS)))


def _compared(results: Sequence[Result]) -> Iterator[TuningEffect]:
    sets: dict[tuple[str, str], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        sets[r.spec.case, r.spec.request][r.spec.label].append(r)
    for (case, request), lines in sets.items():
        for label, mine in lines.items():
            if _own(mine[0].spec):
                found = TuningEffect(case, request, label)
                yield _pair(found, mine, lines.get(f"{label} {TUNED}"))


def _own(run: RunSpec) -> bool:
    return run.label == run.method and bool(run.settings)


def _pair(
    found: TuningEffect, default: Sequence[Result], tuned: Sequence[Result] | None
) -> TuningEffect:
    if tuned is None:
        return replace(found, word="default kept")
    first, second = _scores(default), _scores(tuned)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return found
    apart = paired([second[s].value - first[s].value for s in seeds])
    word: Word = "no difference shown"
    if apart.high is not None and apart.high < 0:
        word = "helped"
    elif apart.low is not None and apart.low > 0:
        word = "harmed"
    return replace(
        found,
        word=word,
        seeds=len(seeds),
        default=TrialScore.mean(first[s] for s in seeds),
        tuned=TrialScore.mean(second[s] for s in seeds),
        low=apart.low,
        high=apart.high,
    )


def _scores(results: Sequence[Result]) -> Mapping[int, TrialScore]:
    found = {}
    for r in results:
        if r.status == "done":
            try:
                found[r.spec.seed] = score(r.values)
            except InputError:
                continue
    return found


HEAD = ("case", "forget set", "method", "seeds", "default", "tuned", "95 %", "cost", "tuning")
LEGEND = (
    "Objective on the study's own forget sets, which the search never saw; lower is better, 0 is as"
    f" an oracle. 95 %: of tuned minus default, from {ENOUGH_FOR_INTERVALS} seeds on. Cost: default"
    " and tuned, as shares of retraining's."
)


def rows(found: Sequence[TuningEffect]) -> list[tuple[str, ...]]:
    """Return the comparison as text, a tuple a line, in the order of ``HEAD``."""
    return [
        (
            x.case,
            x.request,
            x.method,
            str(x.seeds or ""),
            format_objective(x.default),
            format_objective(x.tuned),
            w.interval(x.low, x.high, 3, signed=True),
            ""
            if x.default is None or x.tuned is None
            else f"{x.default.cost:.2f}, {x.tuned.cost:.2f}",
            x.word,
        )
        for x in found
    ]


def format_objective(given: TrialScore | None) -> str:
    """Return an objective as text."""
    return "" if given is None else f"{given.value:.3f}"
