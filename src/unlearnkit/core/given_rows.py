"""Rows as the user gave them: some of them, as an object of the same kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from unlearnkit.core.content import content_digest


@dataclass(frozen=True)
class GivenRows:
    """Some rows of what a user gave; nothing is copied before they are taken."""

    source: Any
    """A pair ``(x, y)`` of arrays or tensors, a map-style data set, or a table."""

    rows: Tensor | None = None
    """Positions ``(n,)``; all rows when None."""

    def pick(self, rows: Tensor) -> GivenRows:
        """Return some of these rows, at positions ``(k,)``."""
        return GivenRows(self.source, rows if self.rows is None else self.rows[rows])

    def take(self) -> Any:
        """Return the rows as the kind of object that the user gave.

        A pair of arrays or tensors comes as such a pair, a ``DataFrame`` as a ``DataFrame``, a
        Hugging Face ``Dataset`` as one (by ``select``), any other data set as a ``Subset`` of it.
        """
        source, rows = self.source, self.rows
        if hasattr(source, "column_names") and hasattr(source, "select"):
            return source.select(range(len(source)) if rows is None else rows.tolist())
        if hasattr(source, "iloc"):
            return source.iloc[slice(None) if rows is None else rows.numpy()]
        if isinstance(source, tuple | list) and len(source) == 2:
            x, y = source
            parted = isinstance(x, tuple) or (isinstance(x, list) and x and _is_tensor(x[0]))
            parts = [_pick(part, rows) for part in x] if parted else _pick(x, rows)
            pair = (tuple(parts) if isinstance(x, tuple) else parts, _pick(y, rows))
            return pair if isinstance(source, tuple) else list(pair)
        return Subset(source, list(range(len(source))) if rows is None else rows.tolist())

    def content(self) -> str:
        """Return the digest of a table's rows with all of their columns; empty of other kinds."""
        found = self.take() if _is_table(self.source) else None
        if found is None:
            return ""
        names = getattr(found, "column_names", None) or list(found.columns)
        return content_digest([[str(c), list(found[c])] for c in names])


class RelabelledRows(Dataset[tuple[Any, Tensor]]):
    """A data set of pairs with other targets."""

    def __init__(self, source: Any, y: Tensor) -> None:
        """Take the data set and the targets ``(N, ...)``."""
        self.source, self.y = source, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        return self.source[i][0], self.y[i]


def _is_table(source: Any) -> bool:
    return hasattr(source, "iloc") or (
        hasattr(source, "column_names") and hasattr(source, "select")
    )


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _pick(x: Any, rows: Tensor | None) -> Any:
    """Return some rows of an array-like or a mapping of such, in memory of their own."""
    if x is None:
        return None
    if isinstance(x, Mapping):
        return {k: _pick(v, rows) for k, v in x.items()}
    rows = torch.arange(len(x)) if rows is None else rows
    if isinstance(x, Tensor):
        return x[rows.to(x.device)]
    if hasattr(x, "iloc"):
        return x.iloc[rows.numpy()]
    if hasattr(x, "dtype"):
        return x[rows.numpy()]
    return type(x)(x[i] for i in rows.tolist())
