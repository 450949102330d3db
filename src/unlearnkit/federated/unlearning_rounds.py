"""Unlearning rounds: clients of the request forget while the others train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.federated.federation import Federation
from unlearnkit.federated.rounds import LocalTraining, local_training, run_round, train_in_rounds

LocalForgetting = Callable[[int, int], LocalTraining]
"""From a client of the request and the number of the round to what the client does."""


def unlearn_in_rounds(
    model: nn.Module,
    forget: Mapping[int, View],
    retain: Mapping[int, View],
    local_forgetting: LocalForgetting,
    task: Task,
    federation: Federation,
    rt: Runtime,
    *,
    rounds: int,
    stream: str,
    least_weight: float = 0.0,
    others: bool = True,
) -> None:
    """Run rounds in which clients with forget rows forget, and the others train as usual.

    Args:
        model: The global model; changed in place.
        forget: The forget rows of each client of the request.
        retain: The retained rows of each client.
        local_forgetting: What a client of the request does in a round.
        task: Outputs and losses.
        federation: Recipes and policies.
        rt: Device, precision, seed, cost.
        rounds: How many; 0 changes nothing.
        stream: First part of the names of random streams.
        least_weight: Least share of all rows that a client of the request weighs, so that the mean
            over many clients does not dilute it.
        others: Whether clients without forget rows take part.
    """
    sizes = {k: len(forget.get(k, ())) + len(retain.get(k, ())) for k in {*forget, *retain}}
    floor = least_weight * sum(sizes.values())
    for number in range(rounds):
        local: dict[int, LocalTraining] = {}
        weights: dict[int, float] = {}
        for k in sorted(sizes):
            if k in forget:
                local[k] = local_forgetting(k, number)
                weights[k] = max(federation.weight(sizes[k]), floor)
            elif others:
                local[k] = local_training(
                    retain[k], task, federation, rt, client=k, number=number, stream=stream
                )
                weights[k] = federation.weight(sizes[k])
        sent = run_round(model, local, weights, federation, rt, number=number, stream=stream)
        if lost := sorted(set(sent.lost) & set(forget)):
            rt.note(f"{stream}: clients {lost} of the request are not in unlearning round {number}")


def repair_in_rounds(
    model: nn.Module,
    retain: Mapping[int, View],
    task: Task,
    federation: Federation,
    rt: Runtime,
    *,
    rounds: int,
    stream: str,
) -> None:
    """Run ordinary rounds on retained rows; the schedule of the recipe runs over them anew.

    Args:
        model: The global model; changed in place.
        retain: The retained rows of each client.
        task: Outputs and losses.
        federation: Recipes and policies.
        rt: Device, precision, seed, cost.
        rounds: How many; 0 changes nothing.
        stream: First part of the names of random streams.
    """
    if rounds:
        short = federation.model_copy(update={"rounds": rounds})
        train_in_rounds(model, retain, task, short, rt, stream=stream)
