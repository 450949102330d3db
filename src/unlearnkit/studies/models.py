"""The models that a study trains from scratch: originals and oracles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unlearnkit.core.digest import digest
from unlearnkit.oracles import oracle
from unlearnkit.studies.planned import Planned
from unlearnkit.studies.work import Desk


@dataclass(frozen=True)
class Model:
    """A model that runs of a study need."""

    kind: str
    """``original`` or ``oracle``."""

    seed: int
    run: Planned
    """The first run that needs it."""

    key: dict[str, Any]
    """Its key in the cache."""

    work: int
    """Rows forward plus twice rows backward of its training."""

    def train(self, desk: Desk) -> None:
        """Train it, unless it is in the cache."""
        subject = desk.subject(self.run)
        if self.kind == "original":
            subject.original(self.seed, desk.cache)
        else:
            oracle(
                subject.case,
                subject.request,
                seeds=[self.seed],
                rt=subject.rt,
                cache=desk.cache,
            )


def models(runs: Iterable[Planned], desk: Desk) -> tuple[Model, ...]:
    """Return the models that runs need, each once, in the order in which they are needed.

    Args:
        runs: The runs.
        desk: Reads their cases; nothing is trained or loaded.

    Returns:
        The models.
    """
    found: dict[str, Model] = {}
    for run in runs:
        subject = desk.subject(run)
        recipe, kept, train = subject.case.recipe, subject.parts.retain, subject.case.train
        assert recipe is not None
        assert kept is not None
        assert train is not None
        rows = {"original": len(train), "oracle": len(kept)}
        for key in (subject.original_key(run.original_seed), *subject.oracle_keys(run.oracles)):
            work = 3 * recipe.epochs * rows[key["kind"]]
            found.setdefault(digest(key), Model(key["kind"], key["seed"], run, key, work))
    return tuple(found.values())
