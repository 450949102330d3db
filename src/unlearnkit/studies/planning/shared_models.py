"""Shared models: the originals and oracles that runs of a study need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unlearnkit.cache import Cache
from unlearnkit.core.digest import digest
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.oracles import oracle, trained_together
from unlearnkit.studies.planning.problem import StudyProblems
from unlearnkit.studies.planning.run_spec import RunSpec


@dataclass(frozen=True)
class SharedModel:
    """A model that runs of a study need."""

    kind: str
    """``original`` or ``oracle``."""

    seed: int
    run: RunSpec
    """The first run that needs it."""

    key: dict[str, Any]
    """Its key in the cache."""

    work: int
    """Rows forward plus twice rows backward of its training."""


@dataclass(frozen=True)
class ModelBatch:
    """Models that one call trains: the oracles of a case in one stack, or a single model."""

    models: tuple[SharedModel, ...]

    def train(self, problems: StudyProblems, cache: Cache) -> None:
        """Train those that are not in the cache, to the same bits as a run that needs them."""
        first = self.models[0]
        subject = problems.hold(first.run)
        if first.kind == "original":
            subject.original(first.seed, cache)
        elif len(self.models) > 1:
            subject.oracles(first.run.oracles, cache)
        else:
            oracle(
                subject.case,
                subject.request,
                seeds=[first.seed],
                rt=subject.rt,
                cache=cache,
            )


def batches(found: Iterable[SharedModel], problems: StudyProblems) -> tuple[ModelBatch, ...]:
    """Return models by what trains together, so that the number of workers changes no bit.

    A model trained in a stack and one trained alone differ by rounding: oracles that a run would
    train in a stack stay together, all others are batches of one.

    Returns:
        The batches, in order.
    """
    groups: dict[object, list[SharedModel]] = {}
    stacked: dict[object, bool] = {}
    for model in found:
        run = model.run
        where = (run.case, run.request, run.device, run.precision, run.oracles)
        if model.kind == "oracle" and where not in stacked:
            s = problems.of_run(run)
            stacked[where] = trained_together(s.case, s.request, run.oracles, s.rt)
        together = model.kind == "oracle" and stacked[where]
        groups.setdefault(where if together else digest(model.key), []).append(model)
    return tuple(ModelBatch(tuple(group)) for group in groups.values())


def models(runs: Iterable[RunSpec], problems: StudyProblems) -> tuple[SharedModel, ...]:
    """Return the models that runs need, each once, in the order of use; nothing is trained."""
    found: dict[str, SharedModel] = {}
    for run in runs:
        subject = problems.of_run(run)
        recipe, kept, train = subject.case.recipe, subject.parts.retain, subject.case.train
        epochs = (recipe or ASSUMED).epochs  # of a training loop, for want of a better guess
        assert kept is not None
        assert train is not None
        rows = {"original": len(train), "oracle": len(kept)}
        for key in (subject.original_key(run.original_seed), *subject.oracle_keys(run.oracles)):
            work = 3 * epochs * rows[key["kind"]]
            found.setdefault(digest(key), SharedModel(key["kind"], key["seed"], run, key, work))
    return tuple(found.values())
