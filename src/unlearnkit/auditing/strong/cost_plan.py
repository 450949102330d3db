"""What a strong audit costs, said before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from unlearnkit.attacks.klom import LEAST_MODELS as KLOM_LEAST
from unlearnkit.attacks.ulira import LEAST as ULIRA_LEAST
from unlearnkit.auditing.remarks import format_duration
from unlearnkit.auditing.strong.bootstrap_intervals import MOST_ROWS
from unlearnkit.auditing.strong.margin_store import ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.train_ensembles import TRAINED, StrongAuditSpec, kinds_of
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.train_function import TrainFunction
from unlearnkit.train.loop import fit
from unlearnkit.train.own_training import train_by_function
from unlearnkit.unlearning.run_method import fresh_model

FIXED, PER_CELL, PER_ULIRA_CELL, PER_KLOM_CELL = 16.0, 1.35e-3, 1.9e-3, 6.5e-2
"""What a table takes, in times of a slice: at all, for each model and row, more with U-LiRA, and
for each model and row that KLoM's intervals are drawn from."""

ARMS = 1.4
"""What a table with a placebo arm takes, in times of one without."""

TIMES = 8


@dataclass(frozen=True)
class StrongAuditCost:
    """What a strong audit has yet to do, counted before it starts."""

    models: int
    """N: of each of the four kinds."""

    train: int
    """Models that have to be trained."""

    already_trained: int
    """Models that were trained before, or whose signals are kept."""

    unlearn: int
    """Models that have to be unlearned."""

    placebo: int
    """Retrained models that the method has to run on, for the placebo arm."""

    rows: int
    """Rows that the trainings put through a model, forward and backward; 0 where a user's own loop
    does not say it."""

    seconds: float
    """About how long it takes; trainings one after another, at the speed found just now, and the
    table of results."""

    def __str__(self) -> str:
        if not self.train and not self.unlearn and not self.placebo:
            return (
                f"strong audit of {self.models} models a kind: all of them are kept; about"
                f" {format_duration(max(self.seconds, 1))} for the table"
            )
        how = f"{self.rows:,} rows forward and backward"
        if self.train and not self.rows:
            how = "one at a time, because train_model cannot be stacked"
        return (
            f"strong audit of {self.models} models a kind: {self.train} to train"
            f" ({self.already_trained} are kept), {self.unlearn} to unlearn and {self.placebo}"
            f" placebo runs; {how}, at most about {format_duration(max(self.seconds, 1))} on this"
            " machine; it may be stopped at any time, and goes on where it stopped"
        )


def plan(subject: StrongAuditSpec, models: int, *, unlearn_seconds: float = 0.0) -> StrongAuditCost:
    """Return what a strong audit would have to do now; nothing but a few steps is trained.

    Args:
        subject: What it is about.
        models: N.
        unlearn_seconds: What one unlearning is known to take.

    Returns:
        The plan.
    """
    done = set(subject.file.members())
    lacking: list[str] = []
    found: list[float] = []
    for who in TRAINED:
        for seed in subject.seeds(who, models):
            if done.issuperset(ModelId(w, seed) for w in kinds_of(who)):
                continue
            facts = subject.cache.facts(subject.training(who).key(seed))
            if facts is None:
                lacking.append(who)
            else:
                found.append(float(facts["seconds"]))
    how = subject.case.training
    epochs = how.epochs if isinstance(how, Recipe) else 0
    whole, stay = len(subject.case.train or ()), len(subject.parts.retain or ())
    rows = sum(epochs * (whole if who == "original" else stay) for who in lacking)
    each = sum(found) / len(found) if found else _timed(subject) if lacking else 0.0
    todo, placebo = (
        sum(ModelId(kind, s) not in done for s in subject.seeds(who, models))
        for kind, who in (("unlearned", "original"), (PLACEBO, "floor"))
    )
    return StrongAuditCost(
        models=models,
        train=len(lacking),
        already_trained=3 * models - len(lacking),
        unlearn=todo,
        placebo=placebo,
        rows=rows,
        seconds=each * len(lacking)
        + (todo + placebo) * unlearn_seconds
        + table_seconds(models, len(subject.views["forget"])),
    )


def table_seconds(models: int, rows: int) -> float:
    """Return about how long the table of a strong audit takes, at the speed found just now.

    Measured parts of a table (``python -m benchmarks strong_memory``), in units of work on a small
    slice of margins: KLoM's draws, whose rows are bounded, and what grows with models times rows.

    Args:
        models: N of each kind.
        rows: Forget rows.

    Returns:
        Seconds.
    """
    each = PER_CELL + (PER_ULIRA_CELL if models >= ULIRA_LEAST else 0.0)
    drawn = PER_KLOM_CELL * min(rows, MOST_ROWS) if models >= KLOM_LEAST else 0.0
    return ARMS * _slice_seconds() * (FIXED + models * (drawn + each * rows))


def _slice_seconds() -> float:
    """Return how long it takes to sort and to add up a slice of 64 models and 4,000 rows."""
    margins = torch.randn(64, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    for _ in range(TIMES):  # the mean, so that what else the machine does counts
        values, order = margins.sort(1)
        values.cumsum(1).gather(1, order)
    return (time.perf_counter() - start) / TIMES


def _timed(subject: StrongAuditSpec) -> float:
    """Return about how long a training takes, from a few steps of one.

    A user's own loop is timed on a tenth of the rows.
    """
    case = subject.case
    assert case.train is not None
    rt = subject.rt.fork(0, quiet=True)
    view = View.all(case.train)
    how = case.training
    if isinstance(how, TrainFunction):
        few = view.pick(torch.arange(math.ceil(len(view) / 10)))
        start = time.perf_counter()
        train_by_function(fresh_model(case, rt), few, how, rt, stream="strong/timed")
        return (time.perf_counter() - start) * len(view) / len(few)
    assert how is not None
    few = view.pick(torch.arange(min(len(view), 4 * how.batch_size)))
    short = how.model_copy(update={"epochs": 1})
    spent = []
    for _ in range(2):
        model = fresh_model(case, rt.fork(0))
        start = time.perf_counter()
        fit(model, few, case.task, short, rt, stream="strong/timed")
        spent.append(time.perf_counter() - start)
    return min(spent) * how.epochs * len(view) / max(len(few), 1)
