"""Sharded case: originals and oracles are trained in shards and slices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.train_function import TrainingOfViews
from unlearnkit.core.training import Training
from unlearnkit.sisa.shard_network import (
    Aggregation,
    ShardNetwork,
    ShardNetworkFactory,
    check_training,
    train_slice,
)
from unlearnkit.sisa.shard_plan import (
    Balance,
    ShardPlan,
    plan_at_random,
    plan_by_expected_deletions,
)


@dataclass(frozen=True)
class ShardTraining(TrainingOfViews):
    """Training from scratch in shards, on whichever rows stay."""

    plan: ShardPlan = field(kw_only=True)
    task: Task = field(kw_only=True, compare=False)
    how: Training = field(kw_only=True)
    """How one shard is trained."""

    def after_deletion(self, stay: torch.Tensor) -> ShardTraining:
        """Return the training in the same shards of the rows that stay ``(k,)``."""
        gone = np.setdiff1d(np.arange(len(self.plan)), stay.numpy())
        return replace(self, plan=self.plan.without(gone))

    def train(self, model: nn.Module, view: View, rt: Runtime) -> None:
        """Train a model on some rows, in place."""
        self.train_shards(model, view, rt, range(self.plan.shards))

    def train_shards(
        self, model: nn.Module, view: View, rt: Runtime, shards: Iterable[int]
    ) -> None:
        """Train the untrained networks of some shards on their rows of a view, in place.

        Args:
            model: A ``ShardNetwork``.
            view: Rows of the plan's training set.
            rt: Seed, device, cost.
            shards: Which ones.

        Raises:
            InputError: If the training set is another than the plan's, or the model has no shards.
        """
        if len(self.plan) != len(view.data):
            raise InputError(
                f"sisa: the shards are those of {len(self.plan)} training rows, and there are"
                f" {len(view.data)}; build the case with sharded_case on these rows"
            )
        network, slices = as_shard_network(model, self.plan), self.plan.slices
        shard = torch.from_numpy(self.plan.shard)[view.rows]
        piece = torch.from_numpy(self.plan.slice_number)[view.rows]
        for k in shards:
            inside = shard == k
            network.weight[k] = float(inside.any())
            for stage in range(slices):
                rows = view.pick(inside & (piece <= stage))
                if len(rows):
                    at = (k, stage, slices)
                    train_slice(network.networks[k], rows, self.task, self.how, rt, at=at)

    def shards_of(self, rows: torch.Tensor) -> list[int]:
        """Return the shards of rows at these positions ``(k,)``."""
        return sorted(set(self.plan.shard[rows.numpy()].tolist()))

    def spec(self) -> dict[str, Any]:
        """Return what names the training in a content address."""
        if isinstance(self.how, Recipe):
            self.how.check_cached()
        how = self.how.model_dump() if isinstance(self.how, Recipe) else self.how.spec()
        content = digest({"plan": self.plan.name, "training": how})
        return {"name": self.name, "content": content, "training": how}

    @property
    def name(self) -> str:
        """Return the name of the training in messages."""
        return f"training in {self.plan.shards} shards of {self.plan.slices} slices"


def as_shard_network(model: nn.Module, plan: ShardPlan) -> ShardNetwork:
    """Return a model as the network of shards that it is.

    Raises:
        InputError: If it is no network of these shards.
    """
    if not isinstance(model, ShardNetwork) or len(model.networks) != plan.shards:
        raise InputError(
            f"sisa: the model is no network of {plan.shards} shards; train one with"
            " uk.train_original(sharded_case(case, ...))"
        )
    return model


def sharded_case(
    case: Case,
    *,
    shards: int = 5,
    slices: int = 1,
    aggregation: Aggregation = "mean",
    expected_deletions: ArrayLike | None = None,
    balance: Balance = "cost",
    seed: int = 0,
) -> Case:
    """Return a case whose originals and oracles are trained in shards.

    ``uk.train_original``, ``uk.oracle``, the audit and the method ``sisa`` then work as for any
    case: retrained models are trained in the same shards without the rows that go.

    Args:
        case: Rows, task, model factory, and a recipe or, for one slice, a training loop.
        shards: Parts that are trained alone (paper: S).
        slices: Parts of a shard that its training adds one after another (paper: R).
        aggregation: ``mean`` of probabilities, or ``vote`` of classes.
        expected_deletions: How likely each training row is to go ``(N,)``: shards by expected
            deletions. At random when None.
        balance: Of shards by expected deletions, as in ``plan_by_expected_deletions``.
        seed: Of the places of rows.

    Returns:
        The case.

    Raises:
        InputError: If the case has no training rows or no model factory.
    """
    if case.train is None or case.fresh is None:
        lacking = "training rows" if case.train is None else "model factory"
        raise InputError(f"sisa: the case has no {lacking}; give Case(train=..., fresh=...)")
    keys = case.keys.named(np.arange(len(case.train)).tolist())
    if expected_deletions is None:
        plan = plan_at_random(keys, shards=shards, slices=slices, seed=seed)
    else:
        plan = plan_by_expected_deletions(
            keys, expected_deletions, shards=shards, slices=slices, seed=seed, balance=balance
        )
    return case_of_plan(case, plan, aggregation)


def case_of_plan(case: Case, plan: ShardPlan, aggregation: Aggregation) -> Case:
    """Return a case whose models are trained in the shards of a plan."""
    assert case.fresh is not None
    how = ShardTraining(plan=plan, task=case.task, how=check_training(case.training, plan.slices))
    return case.replace(
        fresh=ShardNetworkFactory(case.fresh, plan.shards, case.task.name, aggregation),
        train_model=how,
        name=f"{case.name} in shards",
    )
