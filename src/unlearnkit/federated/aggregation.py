"""Aggregation: the weighted mean of what clients send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.module_state import all_finite

State = Mapping[str, Tensor]
"""Parameters and buffers of a model, by name."""


def weighted_mean(states: Mapping[int, State], weights: Mapping[int, float]) -> dict[str, Tensor]:
    """Return ``sum_k w_k state_k / sum_k w_k``, computed in float64, in the types of the states.

    Whole numbers, such as the batches that batch normalisation has counted, are rounded.

    Args:
        states: What each client sends.
        weights: One a client, from 0 up; mostly its rows.

    Returns:
        The mean state.

    Raises:
        InputError: If there is no client, weights do not add up, or states are of different
            architectures.
    """
    if not states:
        raise InputError("aggregation: no client sent an update; keep at least one")
    clients = list(states)
    check_architectures(states)
    share = torch.tensor([weights[k] for k in clients], dtype=torch.float64)
    if not bool(torch.isfinite(share).all()) or bool((share < 0).any()) or not float(share.sum()):
        raise InputError(
            f"aggregation: weights must be finite, from 0 up, and not all 0, got {share.tolist()};"
            " use the clients' numbers of rows"
        )
    share = share / share.sum()
    return {n: _mean([states[k][n] for k in clients], share) for n in states[clients[0]]}


def _mean(parts: Sequence[Tensor], share: Tensor) -> Tensor:
    if len(parts) == 1:
        return parts[0].clone()
    whole = torch.stack([p.detach() for p in parts]).double()
    mean = (whole * share.to(whole.device).view(-1, *[1] * (whole.ndim - 1))).sum(0)
    return (mean if parts[0].is_floating_point() else mean.round()).to(parts[0].dtype)


def check_architectures(states: Mapping[int, State]) -> None:
    """Refuse states whose tensors differ in name, shape or type, and say of which client."""
    first = next(iter(states))
    want = {n: (tuple(t.shape), t.dtype) for n, t in states[first].items()}
    for client, state in states.items():
        have = {n: (tuple(t.shape), t.dtype) for n, t in state.items()}
        odd = next((n for n in {**want, **have} if want.get(n) != have.get(n)), None)
        if odd is not None:
            raise InputError(
                f"aggregation: client {client} has another architecture than client {first}: {odd}"
                f" is {have.get(odd, 'missing')} and {want.get(odd, 'missing')}; average models of"
                " one architecture"
            )


def non_finite_tensor(state: State) -> str:
    """Return the name of the first tensor that is not finite; empty if all are."""
    return next((n for n, t in state.items() if not all_finite(t)), "")
