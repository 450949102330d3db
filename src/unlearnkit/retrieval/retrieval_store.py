"""Retrieval store: rows with embeddings, which can be deleted exactly."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.digest import digest, model_digest
from unlearnkit.core.errors import InputError, UnsupportedError

Absent = Literal["refuse", "skip"]


@dataclass(frozen=True)
class Passages:
    """What the store holds near B queries: K rows each, the nearest first."""

    x: Tensor
    """Inputs ``(B, K, ...)``."""

    y: Tensor
    """Targets ``(B, K)``."""

    similarity: Tensor
    """Inner product of the embeddings ``(B, K)``."""

    there: Tensor
    """Whether there is such a row ``(B, K)``; what stands elsewhere means nothing."""


@dataclass(frozen=True)
class StoreDeletion:
    """What a deletion did."""

    rows: int
    """Rows that were deleted."""

    absent: int
    """Rows that were named and are not in the store."""

    copies_left: int
    """Rows in the store whose input is that of a deleted row: nobody named them."""

    digest: str
    """Of the store afterwards: that of a store built without the rows."""


class RetrievalStore(nn.Module):
    """Rows with their embeddings, searched by inner product.

    The order of rows depends on their content alone, and each row is embedded by itself. A store
    from which rows were deleted is therefore, bit for bit, the one that is built without them. All
    tensors are buffers of a fixed size, so that a store is saved as any model is; places behind the
    last row are 0.

    Args:
        capacity: Most rows, M.
        width: Numbers of an embedding, D.
        x: Input of one row, for its shape and type.
        y: Target of one row.

    Raises:
        InputError: If it has no place for a row.
    """

    embeddings: Tensor
    x: Tensor
    y: Tensor
    names: Tensor
    size: Tensor
    copies: Tensor
    made_by: Tensor

    def __init__(self, capacity: int, width: int, x: Tensor, y: Tensor) -> None:
        super().__init__()
        if capacity < 1 or width < 1:
            raise InputError(f"store: capacity and width of at least 1, got {capacity}, {width}")
        self.register_buffer("embeddings", torch.zeros(capacity, width))
        self.register_buffer("x", x.new_zeros(capacity, *x.shape))
        self.register_buffer("y", y.new_zeros(capacity, *y.shape))
        self.register_buffer("names", torch.zeros(capacity, dtype=torch.long))
        self.register_buffer("size", torch.tensor(0))
        self.register_buffer("copies", torch.tensor(0))
        self.register_buffer("made_by", torch.zeros(32, dtype=torch.uint8))

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.size)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all that the store holds."""
        return model_digest(self)

    def add(self, retriever: nn.Module, x: Tensor, y: Tensor) -> None:
        """Add rows.

        Args:
            retriever: Embeds inputs ``(1, ...)`` as ``(1, D)``; in eval mode.
            x: Inputs ``(n, ...)``.
            y: Targets ``(n, ...)``.

        Raises:
            InputError: If there is no place for them, or the store is of another retriever.
        """
        n, total = len(self), len(self) + len(x)
        if total > len(self.x):
            raise InputError(
                f"store: {total} rows, and there are {len(self.x)} places; build it with capacity="
                f"{total}"
            )
        if n:
            self.check_made_by(retriever)
        name = retriever_name(retriever).to(self.made_by.device)
        with torch.no_grad():
            # One by one: networks round otherwise in batches.
            new = [retriever(row) for row in torch.split(x, 1)]
        self._fill(
            torch.cat([self.embeddings[:n], *new]),
            torch.cat([self.x[:n], x]),
            torch.cat([self.y[:n], y]),
        )
        self.made_by.copy_(name)

    def delete(self, x: Tensor, y: Tensor, *, absent: Absent = "refuse") -> StoreDeletion:
        """Delete rows; where there are copies of a row, as many as are named.

        Args:
            x: Their inputs ``(n, ...)``.
            y: Their targets ``(n, ...)``.
            absent: What to do where a row is not in the store: ``refuse`` all, or ``skip`` it.

        Returns:
            What was deleted, and what was left.

        Raises:
            InputError: If a row is not in the store; nothing has changed then.
        """
        named = row_names(x.to(self.x.dtype), y.to(self.y.dtype))
        left, keep = Counter(named), []
        for i, name in enumerate(self.names[: len(self)].tolist()):
            if left[name] > 0:
                left[name] -= 1
            else:
                keep.append(i)
        missing = _absent(named, left)
        if missing and absent == "refuse":
            raise InputError(
                f"store: {len(missing)} of {len(named)} rows are not in it, such as row"
                f" {missing[0]} of those named; name rows that it holds, with their targets"
            )
        kept = torch.tensor(keep, dtype=torch.long, device=self.x.device)
        same = set(row_names(x.to(self.x.dtype)))
        copies = sum(name in same for name in row_names(self.x[kept]))
        self._fill(self.embeddings[kept], self.x[kept], self.y[kept])
        return StoreDeletion(len(named) - len(missing), len(missing), copies, self.digest)

    def nearest(self, query: Tensor, k: int, skip: Tensor | None = None) -> Passages:
        """Return the rows nearest to queries: all there are, if these are fewer than ``k``.

        Args:
            query: Embeddings ``(B, D)``.
            k: How many, K.
            skip: Inputs ``(B, ...)``: rows with this very input are left out, so that a row that is
                trained on does not retrieve itself.

        Returns:
            The rows.
        """
        n = len(self)
        stored = self.embeddings[:n]
        take = min(n, k + (0 if skip is None else int(self.copies)))
        found = (query @ stored.T).topk(take, dim=1).indices
        # Products of few rows are rounded otherwise than those of many: this one is not.
        likeness = (query[:, None] * stored[found]).sum(-1)
        there = torch.ones_like(found, dtype=torch.bool)
        if skip is not None:
            there = (self.x[found] != skip[:, None]).flatten(2).any(-1)
        order = likeness.masked_fill(~there, float("-inf")).sort(
            dim=1, descending=True, stable=True
        )
        first = order.indices[:, :k]
        at = found.gather(1, first)
        return Passages(self.x[at], self.y[at], likeness.gather(1, first), there.gather(1, first))

    def check_made_by(self, retriever: nn.Module) -> None:
        """Refuse a retriever other than the one that made the embeddings.

        Raises:
            InputError: If it is another one.
        """
        if len(self) and not torch.equal(self.made_by.cpu(), retriever_name(retriever)):
            raise InputError(
                "store: its embeddings were made by another retriever; build the store anew with"
                " this one, or load the retriever that it was built with"
            )

    def _fill(self, embeddings: Tensor, x: Tensor, y: Tensor) -> None:
        """Hold these rows, in the order of their names."""
        names = torch.tensor(row_names(x, y), dtype=torch.long, device=x.device)
        order, n = names.argsort(), len(x)
        for mine, rows in (
            (self.embeddings, embeddings), (self.x, x), (self.y, y), (self.names, names),
        ):  # fmt: skip
            held = rows[order].clone()
            mine.zero_()
            mine[:n] = held
        self.size.fill_(n)
        self.copies.fill_(max(Counter(row_names(x)).values(), default=0))


def _absent(named: list[int], left: Counter[int]) -> list[int]:
    """Return the positions of names that were not found, the last ones where some copies were."""
    open_, found = Counter(left), []
    for i in reversed(range(len(named))):
        if open_[named[i]] > 0:
            open_[named[i]] -= 1
            found.append(i)
    return found[::-1]


def row_names(*columns: Tensor) -> list[int]:
    """Return a 64-bit digest of each row's content ``(n, ...)`` in some columns."""
    arrays = [c.detach().cpu().contiguous().numpy() for c in columns]
    return [
        int.from_bytes(
            hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=8).digest(),
            "little",
            signed=True,
        )
        for row in zip(*arrays, strict=True)
    ]


def retriever_name(retriever: nn.Module) -> Tensor:
    """Return the digest of a retriever's class and state ``(32,)``, uint8."""
    name = digest({"class": type(retriever).__qualname__, "state": model_digest(retriever)})
    return torch.tensor(list(bytes.fromhex(name)), dtype=torch.uint8)


def stored_rows(view: View) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of rows as a store holds them.

    Raises:
        UnsupportedError: If inputs are no single tensor.
    """
    data = view.data
    if not isinstance(data, TensorData) or not isinstance(data.x, Tensor):
        raise UnsupportedError(
            "store: rows must be pairs of tensors (x, y), with one tensor a row, such as token"
            " numbers; give Case(train=(x, y))"
        )
    return data.x[view.rows], data.y[view.rows]
