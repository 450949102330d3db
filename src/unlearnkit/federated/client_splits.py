"""Client splits: which client holds each row."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime

TRIES = 1000
"""Draws of a Dirichlet split before it is given up."""


def iid_split(rows: int, clients: int, *, seed: int = 0) -> Tensor:
    """Return the client of each row, drawn at random: shares differ by one row at most.

    Args:
        rows: N.
        clients: How many clients; each gets at least one row.
        seed: Of the draw.

    Returns:
        Numbers from 0 to ``clients - 1``, ``(N,)``.
    """
    _check_count(rows, clients)
    order = torch.randperm(rows, generator=Runtime(seed=seed).rng("clients/iid"))
    owner = torch.empty(rows, dtype=torch.long)
    owner[order] = torch.arange(rows) % clients
    return owner


def dirichlet_split(
    y: Tensor, clients: int, *, alpha: float = 0.5, least: int = 2, seed: int = 0
) -> Tensor:
    """Return the client of each row; each class is dealt out by shares from a Dirichlet law.

    For each class the clients' shares are drawn from ``Dirichlet(alpha, ..., alpha)`` (Hsu et al.,
    2019, arXiv:1909.06335, deal out per client; here per class, as is usual). A small ``alpha``
    gives clients few classes each; a large one comes near to an IID split. The split is drawn again
    until each client has at least ``least`` rows.

    Args:
        y: Classes ``(N,)``, whole numbers.
        clients: How many clients.
        alpha: Concentration, above 0.
        least: Fewest rows of a client.
        seed: Of the draw.

    Returns:
        Numbers from 0 to ``clients - 1``, ``(N,)``.

    Raises:
        InputError: If targets are no classes, ``alpha`` is not above 0, or no draw gives each
            client enough rows.
    """
    if y.ndim != 1 or y.is_floating_point():
        raise InputError(
            f"dirichlet_split: needs one class a row (N,), got {tuple(y.shape)} of {y.dtype}; use"
            " iid_split for other targets"
        )
    _check_count(len(y), clients, least)
    if not 0 < alpha < float("inf"):
        raise InputError(f"dirichlet_split: alpha must be above 0, got {alpha!r}; 0.5 is usual")
    rng = Runtime(seed=seed).rng("clients/dirichlet")
    for _ in range(TRIES):
        owner = _deal(y, clients, alpha, rng)
        if int(torch.bincount(owner, minlength=clients).min()) >= least:
            return owner
    raise InputError(
        f"dirichlet_split: no draw of {TRIES} gave each of {clients} clients {least} of {len(y)}"
        f" rows with alpha {alpha:g}; use fewer clients, a larger alpha or a smaller least"
    )


def _deal(y: Tensor, clients: int, alpha: float, rng: torch.Generator) -> Tensor:
    owner = torch.empty(len(y), dtype=torch.long)
    for label in sorted(set(y.tolist())):
        rows = (y == label).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=rng)]
        gammas = torch._standard_gamma(
            torch.full((clients,), alpha, dtype=torch.float64), generator=rng
        )
        ends = (gammas.cumsum(0) / gammas.sum() * len(rows)).round().long()
        ends[-1] = len(rows)
        owner[rows] = torch.bucketize(torch.arange(len(rows)), ends, right=True)
    return owner


def _check_count(rows: int, clients: int, least: int = 1) -> None:
    if clients < 1 or clients * least > rows:
        raise InputError(
            f"clients: {rows} rows cannot give {clients} clients at least {least} each; name a"
            f" number from 1 to {rows // max(least, 1)}"
        )
