"""Sharded model: a network trained in shards, with its state on disk."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnkit.core.border import border
from unlearnkit.core.case import Case
from unlearnkit.core.content import architecture_digest, content_digest
from unlearnkit.core.data import View
from unlearnkit.core.digest import NUMERICS, digest, model_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.module_state import all_finite
from unlearnkit.core.request import Features, ForgetRequest, Labels, Rows, parse_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.sisa.case_in_shards import ShardTraining, case_of_plan, sharded_case
from unlearnkit.sisa.shard_checkpoints import ShardFolder
from unlearnkit.sisa.shard_network import Aggregation, ShardNetwork, slice_epochs, train_slice
from unlearnkit.sisa.shard_plan import Balance, Positions, row_ids
from unlearnkit.sisa.sharded_training import ShardedTraining, ShardRemoval
from unlearnkit.train.rng_guard import as_plain_call, seeded_global_rngs

Weights = dict[str, Tensor]


@dataclass
class NetworkLearner:
    """Trains the network of one shard by the recipe of a case."""

    case: Case
    counts: dict[str, str]
    """Shards and slices, as they were requested."""

    slices: int
    rt: Runtime
    first: ShardNetwork
    """Untrained networks: where each shard starts."""

    def identity(self) -> dict[str, str]:
        """Return the settings that decide what is trained, by name."""
        how = self.case.train_model
        assert isinstance(how, ShardTraining)
        return self.counts | {
            "task": digest(dict(self.case.task.spec())),
            "loss": content_digest(self.case.task),
            "training": digest(how.spec()["training"]),
            "architecture": architecture_digest(self.first.networks[0]),
            "untrained weights": model_digest(self.first),
            "seed": str(self.rt.seed),
            "device": self.rt.device.type,
            "precision": self.rt.precision,
            "numerics": str(NUMERICS),
        }

    def passes(self, stage: int) -> int:
        """Return the epochs after a slice was added."""
        recipe = self.case.recipe
        return 1 if recipe is None else slice_epochs(recipe.epochs, self.slices)[stage]

    def train(self, start: Weights | None, shard: int, stage: int, rows: Positions) -> Weights:
        """Return the weights after a slice was added to the training."""
        how, data = self.case.train_model, self.case.train
        assert isinstance(how, ShardTraining)
        assert data is not None
        network = copy.deepcopy(self.first.networks[shard])
        if start is not None:
            network.load_state_dict(start)
        at = (shard, stage, self.slices)
        view = View(data, torch.from_numpy(rows))
        train_slice(network, view, self.case.task, how.how, self.rt, at=at)
        weights = {k: t.detach().cpu().contiguous() for k, t in network.state_dict().items()}
        if not all(all_finite(t) for t in weights.values()):
            raise DivergedError(
                f"sisa: shard {shard} diverged; use a smaller learning rate, and fit again"
            )
        return weights

    def dump(self, trained: Weights) -> bytes:
        """Return weights as bytes."""
        return save({k: t.clone() for k, t in trained.items()})

    def restore(self, content: bytes) -> Weights:
        """Return the weights in bytes."""
        return load(content)

    def digest(self, rows: Positions) -> str:
        """Return the digest of the content of rows."""
        assert self.case.train is not None
        return self.case.train.pick(torch.from_numpy(rows)).key() if len(rows) else ""


class ShardedModel:
    """A network trained in shards and slices (SISA), which forgets rows exactly.

    Each shard's network is trained on its own rows alone; their answers are put together. A removed
    row touches one network, which is trained again from the last slice before the row. The result
    is, bit for bit, the model that is trained from the start without the row.

    Args:
        case: Rows, task, model factory, and a recipe or, for one slice, a training loop. With keys,
            rows that were removed may be left out when the model is loaded again.
        shards: Parts that are trained alone (paper: S).
        slices: Parts of a shard that its training adds one after another (paper: R).
        aggregation: ``mean`` of probabilities, or ``vote`` of classes.
        folder: Where the state is kept; in memory alone when None. It holds no training row and no
            key, but weights that were trained on rows.
        rt: Device and seed.
    """

    @border("sisa")
    def __init__(
        self,
        case: Case,
        *,
        shards: int = 5,
        slices: int = 1,
        aggregation: Aggregation = "mean",
        folder: str | Path | None = None,
        rt: Runtime | None = None,
    ) -> None:
        if not isinstance(case, Case):
            raise InputError(f"sisa: give a uk.Case, got {type(case).__name__}")
        self.rt = Runtime() if rt is None else rt.fork(rt.seed)
        self.shards, self.slices, self.aggregation = shards, slices, aggregation
        self.folder = None if folder is None else Path(folder)
        self.case = case
        self._trained: ShardedTraining | None = None

    @border("sisa")
    @as_plain_call
    def fit(
        self, *, expected_deletions: ArrayLike | None = None, balance: Balance = "cost"
    ) -> Self:
        """Train all shards; a training in the same folder that was killed goes on.

        Args:
            expected_deletions: How likely each training row is to go ``(N,)``: shards by expected
                deletions. At random when None.
            balance: Of these, as in ``plan_by_expected_deletions``.

        Returns:
            The model itself.
        """
        case = sharded_case(
            self.case, shards=self.shards, slices=self.slices, aggregation=self.aggregation,
            expected_deletions=expected_deletions, balance=balance, seed=self.rt.seed,
        )  # fmt: skip
        assert isinstance(case.train_model, ShardTraining)
        plan = case.train_model.plan
        self._trained = ShardedTraining.begin(self._learner(case), plan, self.folder)
        return self

    @border("sisa")
    @as_plain_call
    def load(self) -> Self:
        """Go on with the model in the folder; what a killed removal left open is trained.

        Returns:
            The model itself.

        Raises:
            InputError: If there is no folder, or it holds another model or other rows.
        """
        if self.folder is None:
            raise InputError("sisa: there is no folder to load from; give ShardedModel(folder=...)")
        plan = ShardFolder(self.folder).plan()
        case = case_of_plan(self.case, plan, self.aggregation)
        self._trained = ShardedTraining.resume(self._learner(case), self._ids(), self.folder)
        return self

    @border("sisa")
    @as_plain_call
    def resume(self) -> Self:
        """Train what an interrupted removal left open."""
        self._training.complete()
        return self

    @border("sisa")
    @as_plain_call
    def unlearn(self, request: ForgetRequest | str | Mapping[str, Any]) -> ShardRemoval:
        """Remove rows, and retrain the shards that held them.

        Args:
            request: Rows by key or position, classes, owners; those of classes and owners that are
                removed already are left out.

        Returns:
            What was retrained, the work, and the evidence.

        Raises:
            UnsupportedError: If it corrects rows in place of removing them.
        """
        training, wanted = self._training, parse_request(request)
        if isinstance(wanted, Features | Labels):
            raise UnsupportedError(
                "sisa: a corrected row stays, with another content; remove the rows, or use"
                " uk.unlearn(model, sharded_case(case, ...), request, 'sisa')"
            )
        forget = self.case.partition(wanted).forget
        assert forget is not None
        ids = self._ids()[forget.rows.numpy()].tolist()
        if not isinstance(wanted, Rows):
            ids = [i for i in ids if i not in training.state.removed_ids]
        return training.remove(ids)

    def network(self) -> ShardNetwork:
        """Return the present model, in eval mode; a copy that is yours."""
        models, learner = self._training.models, self._training.learner
        assert isinstance(learner, NetworkLearner)
        out = copy.deepcopy(learner.first)
        for k, weights in enumerate(models):
            out.weight[k] = float(weights is not None)
            if weights is not None:
                out.networks[k].load_state_dict(weights)
        return out.eval()

    def present_case(self) -> Case:
        """Return the case of the rows that are left, in the same shards: for audits and oracles."""
        assert self.case.train is not None
        training = self._training
        plan, state = training.state.plan, training.state
        gone = np.flatnonzero(np.isin(plan.ids, list(state.removed_ids)))
        rows = torch.from_numpy(training.rows)
        keys = self.case.keys
        left = self.case.replace(
            train=self.case.train.pick(rows),
            keys=type(keys)(keys.named(rows), keys.owners),
            input_moments=None,
        )
        return case_of_plan(left, plan.without(gone), self.aggregation)

    @property
    def _training(self) -> ShardedTraining:
        if self._trained is None:
            raise InputError("sisa: the model is not trained; call fit, or load")
        return self._trained

    def _ids(self) -> Positions:
        if self.case.train is None:
            raise InputError("sisa: the case has no training rows; give Case(train=...)")
        rows = np.arange(len(self.case.train)).tolist()
        return row_ids(self.case.keys.named(rows), self.rt.seed)

    def _learner(self, case: Case) -> NetworkLearner:
        """Return who trains shards; untrained networks are those of ``uk.train_original``."""
        assert case.fresh is not None
        with seeded_global_rngs(self.rt, "train/init"):
            built: nn.Module = case.fresh()
        assert isinstance(built, ShardNetwork)
        counts = {"shards": str(self.shards), "slices": str(self.slices)}
        return NetworkLearner(case, counts, self.slices, self.rt, built.to(self.rt.device))
