"""What a strong audit costs, said before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from unlearnkit.auditing.sentences import format_duration
from unlearnkit.auditing.strong.margin_store import ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.train_ensembles import TRAINED, StrongAuditSpec, kinds_of
from unlearnkit.core.data import View
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model


@dataclass(frozen=True)
class StrongAuditCost:
    """What a strong audit has yet to do, counted before it starts."""

    models: int
    """N: of each of the four kinds."""

    train: int
    """Models that have to be trained."""

    kept: int
    """Models that were trained before, or whose signals are kept."""

    unlearn: int
    """Models that have to be unlearned."""

    placebo: int
    """Retrained models that the method has to run on, for the placebo arm."""

    rows: int
    """Rows that the trainings put through a model, forward and backward."""

    seconds: float
    """About how long it takes; trainings one after another, at the speed found just now."""

    def __str__(self) -> str:
        if not self.train and not self.unlearn and not self.placebo:
            return f"strong audit of {self.models} models a kind: all of them are kept"
        return (
            f"strong audit of {self.models} models a kind: {self.train} to train"
            f" ({self.kept} are kept), {self.unlearn} to unlearn and {self.placebo} placebo runs;"
            f" {self.rows:,} rows forward and backward, at most about"
            f" {format_duration(max(self.seconds, 1))} on this machine; it may be stopped at any"
            " time, and goes on where it stopped"
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
    recipe = subject.case.recipe
    assert recipe is not None
    whole, stay = len(subject.case.train or ()), len(subject.parts.retain or ())
    rows = sum(recipe.epochs * (whole if who == "original" else stay) for who in lacking)
    each = sum(found) / len(found) if found else _timed(subject) if lacking else 0.0
    todo, placebo = (
        sum(ModelId(kind, s) not in done for s in subject.seeds(who, models))
        for kind, who in (("unlearned", "original"), (PLACEBO, "floor"))
    )
    return StrongAuditCost(
        models=models,
        train=len(lacking),
        kept=3 * models - len(lacking),
        unlearn=todo,
        placebo=placebo,
        rows=rows,
        seconds=each * len(lacking) + (todo + placebo) * unlearn_seconds,
    )


def _timed(subject: StrongAuditSpec) -> float:
    """Return about how long a training takes, from a few steps of one."""
    case = subject.case
    assert case.train is not None
    assert case.recipe is not None
    rt = subject.rt.fork(0, quiet=True)
    view = View.all(case.train)
    few = view.pick(torch.arange(min(len(view), 4 * case.recipe.batch_size)))
    short = case.recipe.model_copy(update={"epochs": 1})
    spent = []
    for _ in range(2):
        model = fresh_model(case, rt.fork(0))
        start = time.perf_counter()
        fit(model, few, case.task, short, rt, stream="strong/timed")
        spent.append(time.perf_counter() - start)
    return min(spent) * case.recipe.epochs * len(view) / max(len(few), 1)
