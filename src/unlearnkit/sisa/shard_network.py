"""Shard network: one network a shard, answers put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.training import Training
from unlearnkit.train.ensemble import EnsembleMember, fit_each

Aggregation = Literal["mean", "vote"]


class ShardNetwork(nn.Module):
    """The networks of all shards as one network.

    Classification: log of the mean probability of each class (``mean``); or the votes for each
    class plus its mean probability, which settles ties (``vote``). Several labels: log-odds of the
    mean probability. Regression: mean output. A shard without rows has no say.

    Args:
        networks: One a shard, of one architecture.
        task: Name of the task: ``classification``, ``multilabel`` or ``regression``.
        aggregation: How answers are put together.
    """

    weight: Tensor

    def __init__(
        self, networks: Sequence[nn.Module], *, task: str, aggregation: Aggregation = "mean"
    ) -> None:
        super().__init__()
        if aggregation not in {"mean", "vote"}:
            raise InputError(f"aggregation: must be mean or vote, got {aggregation!r}")
        if aggregation == "vote" and task != "classification":
            raise UnsupportedError(
                f"aggregation: only classes can be voted for, and the task is {task}; choose mean"
            )
        self.networks = nn.ModuleList(networks)
        self.task, self.aggregation = task, aggregation
        self.register_buffer("weight", torch.ones(len(networks)))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the aggregated outputs ``(B, K)``; one logit a row is put together as two."""
        answers = []
        for network in self.networks:
            out = network(*args, **kwargs)
            answers.append(out if isinstance(out, Tensor) else out.logits)
        outs = torch.stack(answers)
        present = self.weight.to(outs.device) > 0
        if not bool(present.all()):
            outs = outs[present]
        if self.task == "regression":
            return outs.mean(0)
        if self.task == "classification" and (outs.ndim == 2 or outs.shape[-1] == 1):
            z = outs.reshape(len(outs), -1)
            outs = torch.stack([torch.zeros_like(z), z], -1)
        if self.task == "classification":
            mean = _log_mean(outs.log_softmax(-1))
            if self.aggregation == "mean":
                return mean
            votes = nn.functional.one_hot(outs.argmax(-1), outs.shape[-1]).sum(0)
            return votes.to(mean.dtype) + mean.exp()
        yes, no = nn.functional.logsigmoid(outs), nn.functional.logsigmoid(-outs)
        return _log_mean(yes) - _log_mean(no)


def _log_mean(logs: Tensor) -> Tensor:
    return logs.logsumexp(0) - math.log(len(logs))


@dataclass(frozen=True)
class ShardNetworkFactory:
    """Builds untrained networks, one a shard."""

    fresh: Callable[[], nn.Module]
    shards: int
    task: str
    aggregation: Aggregation

    def __call__(self) -> ShardNetwork:
        """Return a new untrained network of shards."""
        networks = [self.fresh() for _ in range(self.shards)]
        return ShardNetwork(networks, task=self.task, aggregation=self.aggregation)


def slice_epochs(epochs: int, slices: int) -> list[int]:
    """Return the epochs after each slice was added: ``2 e / (R + 1)`` each, as whole numbers.

    All slices together then read as many rows as ``epochs`` on the whole shard (Bourtoule et al.
    2021, section V). Fractions are rounded so that the sums over slices are right to half an epoch;
    each slice has at least one.

    Args:
        epochs: Of a training without slices (paper: e').
        slices: How many (paper: R).

    Returns:
        One number a slice.
    """
    each = 2 * epochs / (slices + 1)
    ends = [math.floor(each * k + 0.5) for k in range(slices + 1)]
    return [max(1, after - before) for before, after in pairwise(ends)]


def check_training(how: Training | None, slices: int) -> Training:
    """Return how shards are trained.

    Raises:
        UnsupportedError: If nothing says it, or a loop of the user's own is to train in slices.
    """
    if how is None:
        raise UnsupportedError(
            "sisa: the case has no recipe and no train_model; give Case(recipe=Recipe(...)) or"
            " Case(train_model=fn)"
        )
    if slices > 1 and not isinstance(how, Recipe):
        raise UnsupportedError(
            "sisa: train_model decides itself how long it trains, so that slices cannot share its"
            " length; set slices=1, or give a recipe"
        )
    return how


def train_slice(
    network: nn.Module, view: View, task: Task, how: Training, rt: Runtime, *, at: tuple[int, ...]
) -> None:
    """Train one shard's network on, after a slice was added.

    Args:
        network: Changed in place.
        view: The rows of all slices so far.
        task: Outputs and losses.
        how: The recipe of training without slices, or the user's own loop.
        rt: Its seed, with shard and slice, gives all random numbers.
        at: Shard, slice, and number of slices.
    """
    shard, stage, slices = at
    if isinstance(how, Recipe):
        how = how.model_copy(update={"epochs": slice_epochs(how.epochs, slices)[stage]})
    own = replace(rt, seed=rt.rng(f"sisa/{shard}/{stage}").initial_seed())
    fit_each([EnsembleMember(network, view, own, "sisa/rows")], task, how)
