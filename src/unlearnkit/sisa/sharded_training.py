"""Sharded training: trains shards slice by slice, and retrains what a removal touches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.sisa.shard_checkpoints import ShardFolder, ShardMemory, ShardState
from unlearnkit.sisa.shard_plan import Positions, ShardPlan

ASSUMPTIONS = (
    "retrained means: trained in the same shards and slices, with the same settings and seeds, on"
    " the rows that stay",
    "the places of rows in shards and slices were fixed before training and come from no content of"
    " a row",
    "settings, such as the number of epochs, were not chosen with the removed rows",
    "nothing but the shards has read the removed rows: no feature extractor, scaling or"
    " selection of columns that was fitted on them",
    "whoever compares models from before and after a request learns more than from one of them",
)
"""What the exactness of sharded training rests on."""


def exact_statement(source: str) -> EvidenceStatement:
    """Return the statement of a model that was retrained in the shards of the removed rows."""
    return EvidenceStatement(
        kind="exact",
        statement="the model is one that was trained in shards without the removed rows",
        assumptions=ASSUMPTIONS,
        source=source,
    )


class ShardRemoval(FrozenModel):
    """What a removal did."""

    rows: int
    """Rows that were removed by this request."""

    shards: tuple[int, ...]
    """Shards that were retrained."""

    stages: int
    """Slices of these that were trained again; all earlier ones are kept checkpoints."""

    work: int
    """Rows times passes over them that were trained."""

    full_work: int
    """The same of training all shards from the start on the rows that stay."""

    seconds: float
    """What it took."""

    evidence: EvidenceStatement
    """Exact, and all that this rests on."""

    @property
    def share(self) -> float:
        """Return the work as a share of training all shards from the start."""
        return self.work / self.full_work


class ShardLearner(Protocol):
    """Trains one shard, slice after slice."""

    def identity(self) -> dict[str, str]:
        """Return the settings that decide what is trained, by name."""
        ...

    def passes(self, stage: int) -> int:
        """Return how often the training after a slice was added reads its rows."""
        ...

    def train(self, start: Any, shard: int, stage: int, rows: Positions) -> Any:
        """Return a model trained on from ``start`` (None: untrained); ``start`` stays as it is."""
        ...

    def dump(self, trained: Any) -> bytes:
        """Return a trained model as bytes."""
        ...

    def restore(self, content: bytes) -> Any:
        """Return the trained model in bytes."""
        ...

    def digest(self, rows: Positions) -> str:
        """Return the digest of the content of rows at these positions."""
        ...


@dataclass
class ShardedTraining:
    """A model of shards: trained, kept, and retrained where rows go.

    At each moment the state names the rows that were removed and the slices that are trained on
    what is left. A removal first writes that the rows are gone and that what saw them does not
    count; then it trains. Whatever kills it, the rows stay removed and training goes on from the
    last slice that was finished.
    """

    learner: ShardLearner
    checkpoints: ShardMemory | ShardFolder
    state: ShardState
    place: Positions
    """Position of each row of the plan in the data at hand; -1 for removed rows."""

    _shards: list[Any] = field(default_factory=list)

    @classmethod
    def begin(cls, learner: ShardLearner, plan: ShardPlan, folder: Path | None) -> ShardedTraining:
        """Return the trained model; a training of the same that was killed goes on.

        Args:
            learner: Trains shards.
            plan: The place of each row, in the order of the data.
            folder: Where the state is kept; in memory alone when None.

        Returns:
            The model.

        Raises:
            InputError: If the folder holds another model, or one that rows were removed from.
        """
        if folder is not None and ShardFolder(folder).there:
            found = cls.resume(learner, plan.ids, folder, complete=False)
            if found.state.removed_ids:
                raise InputError(
                    f"sisa: {len(found.state.removed_ids)} rows were removed from the model in"
                    f" {str(folder)!r}; call load to go on with it, or fit into another folder"
                )
            if found.state.plan != plan:
                raise InputError(
                    f"sisa: the model in {str(folder)!r} has other shards; fit into another folder"
                )
            found.complete()
            return found
        kept = ShardMemory() if folder is None else ShardFolder(folder)
        place = np.arange(len(plan))
        empty: list[list[Any]] = [[] for _ in range(plan.shards)]
        state = ShardState(learner.identity(), plan, set(), [], empty)
        new = cls(learner, kept, state, place)
        state.digests = [
            [new._digest(s, k) for k in range(plan.slices)] for s in range(plan.shards)
        ]
        with kept.guard():
            kept.write(state)
        new.complete()
        return new

    @classmethod
    def resume(
        cls, learner: ShardLearner, ids: Positions, folder: Path, *, complete: bool = True
    ) -> ShardedTraining:
        """Return the model that a folder holds, with its training rows.

        Args:
            learner: With the settings that it was trained with.
            ids: The number of each row at hand ``(N,)``; removed rows may be left out.
            folder: Holds the state.
            complete: Whether to train what a killed call has left open.

        Returns:
            The model.

        Raises:
            InputError: If rows are missing, unknown or changed, or the state is of another model.
        """
        kept = ShardFolder(folder)
        with kept.guard():
            state = kept.read(learner.identity())
        at = {int(number): i for i, number in enumerate(ids)}
        place = np.array(
            [-1 if n in state.removed_ids else at.get(n, -2) for n in state.plan.ids.tolist()]
        )
        missing = int((place == -2).sum())
        unknown = len(set(at) - set(state.plan.ids.tolist()))
        if missing or unknown:
            raise InputError(
                f"sisa: not the rows of this model: {missing} of its rows are missing and"
                f" {unknown} are unknown to it; give the rows of the fit, with the same keys"
            )
        found = cls(learner, kept, state, place)
        found._check_rows()
        if complete:
            found.complete()
        return found

    @property
    def rows(self) -> Positions:
        """Return the positions of the rows that are left, in the order of the first fit."""
        return self.place[self.place >= 0]

    @property
    def models(self) -> list[Any]:
        """Return the trained model of each shard; None for a shard without rows."""
        lacking = sum(len(s) < self.state.plan.slices for s in self.state.stages)
        if lacking:
            raise InputError(
                f"sisa: {lacking} shards are not trained to the end, because a removal was"
                " interrupted; call resume"
            )
        if not self._shards:
            self._shards = [
                self.checkpoints.restore(s[-1], self.learner.restore) for s in self.state.stages
            ]
        return self._shards

    def remove(self, ids: Iterable[int]) -> ShardRemoval:
        """Remove rows, and retrain their shards from the last slice before the first of them.

        Args:
            ids: Numbers of the rows.

        Returns:
            What was retrained, and what it took. Rows that are unknown, named twice or removed
            already are refused, and so is the last row.
        """
        start, state, plan = time.perf_counter(), self.state, self.state.plan
        wanted = list(ids)
        self._check_request(wanted)
        with self.checkpoints.guard():
            gone = np.isin(plan.ids, wanted)
            touched = sorted(set(plan.shard[gone].tolist()))
            place = np.where(gone, -1, self.place)
            stages_left = [list(done) for done in state.stages]
            digests = [list(slices) for slices in state.digests]
            for shard in touched:
                slices = plan.slice_number[gone & (plan.shard == shard)].tolist()
                del stages_left[shard][min(slices) :]
                for piece in set(slices):
                    digests[shard][piece] = self.learner.digest(
                        place[_members(plan, shard, piece) & (place >= 0)]
                    )
            new = replace(
                state,
                removed_ids={*state.removed_ids, *wanted},
                digests=digests,
                stages=stages_left,
            )
            self.checkpoints.write(new)
            self.state, self.place, self._shards = new, place, []
            stages, work = self._train()
        return ShardRemoval(
            rows=len(wanted),
            shards=tuple(touched),
            stages=stages,
            work=work,
            full_work=self.full_work(),
            seconds=time.perf_counter() - start,
            evidence=exact_statement(f"sisa: {plan.shards} x {plan.slices} (shards x slices)"),
        )

    def complete(self) -> None:
        """Train what is not trained: after a kill, or an error in a removal."""
        with self.checkpoints.guard():
            self._train()
            self.checkpoints.clean(self.state)

    def full_work(self) -> int:
        """Return rows times passes of training all shards from the start on the rows that stay."""
        plan = self.state.plan
        return sum(self._work(s, k) for s in range(plan.shards) for k in range(plan.slices))

    def _work(self, shard: int, stage: int) -> int:
        return len(self._rows_up_to(shard, stage)) * self.learner.passes(stage)

    def _train(self) -> tuple[int, int]:
        """Return how many missing slices were trained, and the work; each is written when done."""
        state, stages, work = self.state, 0, 0
        self._shards = []
        for shard, done in enumerate(state.stages):
            unfinished = 0 < len(done) < state.plan.slices
            model = self.checkpoints.restore(done[-1], self.learner.restore) if unfinished else None
            for stage in range(len(done), state.plan.slices):
                rows = self._rows_up_to(shard, stage)
                if len(rows):
                    model = self.learner.train(model, shard, stage, rows)
                    stages, work = stages + 1, work + self._work(shard, stage)
                else:
                    model = None
                done.append(self.checkpoints.keep(shard, stage, model, self.learner.dump))
                self.checkpoints.write(state)
        return stages, work

    def _rows_up_to(self, shard: int, stage: int) -> Positions:
        plan = self.state.plan
        inside = (plan.shard == shard) & (plan.slice_number <= stage) & (self.place >= 0)
        found: Positions = self.place[inside]
        return found

    def _digest(self, shard: int, piece: int) -> str:
        inside = _members(self.state.plan, shard, piece) & (self.place >= 0)
        return self.learner.digest(self.place[inside])

    def _check_rows(self) -> None:
        for shard, slices in enumerate(self.state.digests):
            for piece, was in enumerate(slices):
                if self._digest(shard, piece) != was:
                    raise InputError(
                        f"sisa: a row of shard {shard}, slice {piece} is not as it was at the fit;"
                        " give the same rows, or fit again into another folder"
                    )

    def _check_request(self, wanted: list[int]) -> None:
        known = set(self.state.plan.ids.tolist())
        if not wanted:
            raise InputError("sisa: the request names no row; name at least one")
        if len(set(wanted)) < len(wanted):
            raise InputError("sisa: the request names a row twice; name each once")
        if set(wanted) - known:
            raise InputError("sisa: the request names a row that the model was not trained on")
        again = len(set(wanted) & self.state.removed_ids)
        if again:
            raise InputError(
                f"sisa: {again} of the {len(wanted)} rows are removed already; leave them out"
            )
        if len(wanted) + len(self.state.removed_ids) == len(known):
            raise InputError("sisa: the request names all rows that are left; keep some")


def _members(plan: ShardPlan, shard: int, piece: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (plan.shard == shard) & (plan.slice_number == piece)
    return found
