"""Shard plan: the shard and the slice of each training row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearnkit.core.errors import InputError

Positions = NDArray[np.int64]

Balance = Literal["cost", "deletions"]
"""What shards by expected deletions have in equal parts."""


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """Disjoint shards, each cut into slices; a row's place depends on no other row's content."""

    ids: Positions
    """A number for each row ``(N,)``, made of the seed and the row's key."""

    shard: Positions
    """The shard of each row ``(N,)``, from 0."""

    slice_number: Positions
    """The slice of each row within its shard ``(N,)``, from 0."""

    shards: int
    slices: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardPlan) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def name(self) -> str:
        """Return the SHA-256 of the plan."""
        h = hashlib.sha256(f"{self.shards}/{self.slices}".encode())
        for part in (self.ids, self.shard, self.slice_number):
            h.update(np.ascontiguousarray(part).tobytes())
        return h.hexdigest()

    def without(self, rows: ArrayLike) -> ShardPlan:
        """Return the plan of the other rows; every one of them keeps its place."""
        stay = np.ones(len(self), dtype=bool)
        stay[np.asarray(rows, dtype=np.int64)] = False
        return ShardPlan(
            self.ids[stay], self.shard[stay], self.slice_number[stay], self.shards, self.slices
        )

    def expected_share(self, expected: ArrayLike | None = None) -> float:
        """Return the expected share of all training rows that are in the shard of a request.

        Args:
            expected: How likely each row is to be the one that goes ``(N,)``, in any unit; all
                alike when None.

        Returns:
            The share: ``1 / shards`` for equal shards and rows that are all alike.
        """
        weights = _weights(np.ones(len(self)) if expected is None else expected, len(self))
        size = np.bincount(self.shard, minlength=self.shards)
        return float((weights / weights.sum()) @ size[self.shard] / len(self))


def plan_at_random(
    keys: Sequence[object], *, shards: int, slices: int = 1, seed: int = 0
) -> ShardPlan:
    """Return a plan in which each row's place is drawn by itself, from the seed and its key.

    A model trained without some rows then has exactly the plan that is left here without them,
    which a cut of all rows into equal parts would not give. Sizes of shards differ a little: by
    about the root of their mean size.

    Args:
        keys: One a row, unique: whole numbers or texts.
        shards: Parts that are trained alone (paper: S).
        slices: Parts of a shard that its training adds one after another (paper: R).
        seed: Of the draw.

    Returns:
        The plan.
    """
    _check_counts(len(keys), shards, slices)
    ids = row_ids(keys, seed)
    return ShardPlan(ids, ids % shards, ids // shards % slices, shards, slices)


def plan_by_expected_deletions(
    keys: Sequence[object],
    expected: ArrayLike,
    *,
    shards: int,
    slices: int = 1,
    seed: int = 0,
    balance: Balance = "cost",
) -> ShardPlan:
    """Return a plan in which rows that are likely to go stand together, in small shards.

    Rows are ordered by how likely they are to go, and cut where a sum reaches the next multiple of
    its ``total / shards``. ``deletions`` sums the expected deletions ``p`` (Bourtoule et al. 2021,
    algorithm 1): every shard is retrained as often. A single request then still costs
    ``1 / shards`` of a retraining, as at random. ``cost`` sums ``sqrt(p)``: of all cuts into that
    many shards it has nearly the smallest expected number of rows to train again, ``sum_s P_s n_s``
    with P_s the probability of a request and n_s the rows of a shard. Within a shard the same order
    is cut into slices of equal size, so that the rows most likely to go come last and cost least. A
    shard that would be empty is left out. The expectations must be known before training: what the
    plan says of a row must not come from its content.

    Args:
        keys: One a row, unique.
        expected: Expected deletions of each row ``(N,)``, such as the probability that its owner
            objects within a year.
        shards: Most shards.
        slices: Slices of a shard.
        seed: Orders rows with equal expectations.
        balance: What is summed.

    Returns:
        The plan.

    Raises:
        InputError: If the balance is unknown.
    """
    _check_counts(len(keys), shards, slices)
    if balance not in {"cost", "deletions"}:
        raise InputError(f"balance: must be cost or deletions, got {balance!r}")
    weights = _weights(expected, len(keys))
    weights = np.sqrt(weights) if balance == "cost" else weights
    ids = row_ids(keys, seed)
    order = np.lexsort((ids, weights))
    before = np.cumsum(weights[order]) - weights[order]
    cut = np.minimum(before * shards / weights.sum() * (1 + 1e-12), shards - 1).astype(np.int64)
    _, ranked = np.unique(cut, return_inverse=True)
    count = int(ranked.max()) + 1
    shard, piece = np.empty_like(ids), np.empty_like(ids)
    shard[order] = ranked
    for number in range(count):
        rows = order[ranked == number]
        piece[rows] = np.arange(len(rows)) * slices // len(rows)
    return ShardPlan(ids, shard, piece, count, slices)


def row_ids(keys: Iterable[object], seed: int) -> Positions:
    """Return a number for each row, from 0 to 2^63 - 1.

    Args:
        keys: One a row, unique: whole numbers or texts.
        seed: Numbers of different seeds have nothing in common.

    Returns:
        The numbers ``(N,)``.

    Raises:
        InputError: If a key is there twice, or is neither a whole number nor a text.
    """
    found: dict[int, object] = {}
    for key in keys:
        if isinstance(key, bool) or not isinstance(key, int | str | np.integer):
            raise InputError(
                f"keys: must be whole numbers or texts, got {key!r:.60} ({type(key).__name__})"
            )
        kind = "text" if isinstance(key, str) else "number"
        raw = hashlib.sha256(f"{seed}/{kind}/{key}".encode()).digest()[:8]
        number = int.from_bytes(raw, "big") >> 1
        if number in found:
            raise InputError(f"keys: {key!r:.60} names two rows; give each row a key of its own")
        found[number] = key
    return np.fromiter(found, dtype=np.int64, count=len(found))


def _weights(expected: ArrayLike, rows: int) -> NDArray[np.float64]:
    weights = np.asarray(expected, dtype=np.float64)
    if weights.shape != (rows,):
        raise InputError(
            f"expected_deletions: got shape {weights.shape} for {rows} rows; give one number a row"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise InputError(
            "expected_deletions: must be finite, at least 0 and not all 0; give each row's expected"
            " deletions, such as 0.01"
        )
    return weights


def _check_counts(rows: int, shards: int, slices: int) -> None:
    for name, count in (("shards", shards), ("slices", slices)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise InputError(f"{name}: must be a whole number of at least 1, got {count!r}")
    if rows < shards * slices:
        raise InputError(
            f"shards: {shards} x {slices} slices for {rows} rows; choose fewer, so that each has"
            " rows"
        )
