"""Arrow rows: a folder of Parquet files, mapped into memory and read batch by batch."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from unlearnkit.core.data import Inputs, MapData, as_tensor, check_finite
from unlearnkit.core.digest import digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.given_rows import GivenRows, RelabelledRows

Chunks = list[np.ndarray[Any, Any]]
"""A column, part by part; each part is a view of the file."""


_PART = 32 * 2**20
"""Bytes of rows that lie together in the Arrow file."""


class ArrowTable:
    """The input columns of a table as views of its file; rows are pairs ``(x, None)``."""

    def __init__(self, columns: dict[str, Chunks]) -> None:
        """Take each column's parts, of equal lengths in all columns."""
        self.columns = columns
        lengths = [len(part) for part in next(iter(columns.values()))]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, i: int) -> tuple[Inputs, None]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        x = self.read(torch.tensor([i]))
        return (x[0] if isinstance(x, Tensor) else {k: t[0] for k, t in x.items()}), None

    def read(self, rows: Tensor) -> Inputs:
        """Return inputs at positions ``(k,)``: a float32 matrix of scalar columns, or by name."""
        at = rows.numpy()
        where = np.searchsorted(self.starts, at, side="right") - 1
        places = [(part, (where == part).nonzero()[0]) for part in np.unique(where)]
        found = {}
        for name, parts in self.columns.items():
            out = np.empty((len(at), *parts[0].shape[1:]), parts[0].dtype)
            for part, mine in places:
                out[mine] = parts[part][at[mine] - self.starts[part]]
            found[name] = torch.from_numpy(out)
        if all(t.ndim == 1 for t in found.values()):
            return torch.stack([t.float() for t in found.values()], 1)
        found = {n: t.float() if t.dtype == torch.float64 else t for n, t in found.items()}
        return next(iter(found.values())) if len(found) == 1 else found


@dataclass(frozen=True)
class ArrowRows(MapData):
    """Rows of an Arrow table on disk; targets and owners are in memory, inputs are not."""

    source: ArrowTable
    at: Tensor | None = field(default=None, compare=False, repr=False)
    """Positions in the table ``(N,)``; all rows when None."""

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows at positions ``order (k,)``, ``size`` at a time."""
        for part in torch.split(order, size):
            x = self.source.read(part if self.at is None else self.at[part])
            for name, t in {"x": x}.items() if isinstance(x, Tensor) else x.items():
                check_finite("data", name, t, part)
            yield x

    def pick(self, rows: Tensor) -> ArrowRows:
        """Return some rows, at positions ``(k,)``, as data of their own; none are read."""
        owners = None if self.group is None else self.group[rows]
        at = rows if self.at is None else self.at[rows]
        return replace(self, y=self.y[rows], group=owners, at=at, given=None)

    def as_given(self) -> GivenRows:
        """Return the rows as a map-style data set of pairs."""
        rows: Any = self.source if self.at is None else Subset(self.source, self.at.tolist())  # type: ignore[arg-type]  # map-style
        return GivenRows(RelabelledRows(rows, self.y))

    def extra_content(self) -> str:
        """Return "": there is nothing besides inputs and targets."""
        return ""

    def key(self) -> str:
        """Return the content address of all rows; the file is read once, part by part."""
        if "table" not in self._known:
            self._known["table"] = digest(
                {name: _digest_of(parts) for name, parts in self.source.columns.items()}
            )
        at = "" if self.at is None else tensor_digest(self.at)
        return digest({"x": self._known["table"], "at": at, "y": tensor_digest(self.y)})


_DECODE = "import json, sys, datasets; datasets.Dataset.from_parquet(**json.load(sys.stdin))"


def parquet_rows(
    folder: str | Path,
    *,
    target: str,
    inputs: tuple[str, ...] | list[str] = (),
    group: str | None = None,
    cache: str | Path | None = None,
) -> ArrowRows:
    """Return the rows of a folder of Parquet files, for ``Case(train=...)``, read batch by batch.

    The library ``datasets`` writes them once as Arrow files, which are mapped into memory. Numbers
    in columns become one float32 matrix ``(N, D)``; columns of lists of one length stay apart, by
    name, where there are several.

    Args:
        folder: Its ``.parquet`` files are read in the order of their names.
        target: The target column.
        inputs: The input columns; all but target and group when empty.
        group: The column of the rows' owners, integers.
        cache: Where the Arrow files go; the cache of ``datasets`` when None.

    Returns:
        The rows. Memory holds targets and owners, 8 bytes a row each.

    Raises:
        InputError: If ``datasets`` is absent, the folder holds no readable Parquet files, their
            schemas differ, or a column is missing or not numeric.
    """
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise InputError(f"parquet: no .parquet files in {str(folder)!r}; name the folder itself")
    made = {
        "path_or_paths": [str(f) for f in files],
        "cache_dir": None if cache is None else str(cache),
        "writer_batch_size": _check_schemas(files),
    }
    if sum(f.stat().st_size for f in files) > _PART:
        # In a process of its own, so that what decoding leaves in memory ends with it.
        subprocess.run(
            [sys.executable, "-c", _DECODE], input=json.dumps(made).encode(), check=False,
            capture_output=True,
        )  # fmt: skip
    table = _library("datasets").Dataset.from_parquet(**made)
    skip = {target, group}
    wanted = list(inputs) or [c for c in table.column_names if c not in skip]
    lost = next((c for c in (target, group, *wanted) if c and c not in table.column_names), None)
    if lost is not None or not wanted:
        raise InputError(
            f"parquet: no column {lost or 'besides the target'!r} in {str(folder)!r}; there are:"
            f" {', '.join(table.column_names)}"
        )
    columns = {c: [_view(part, c) for part in table.data.column(c).chunks] for c in wanted}
    y = as_tensor(np.concatenate([_view(p, target) for p in table.data.column(target).chunks]), "y")
    owners = None if group is None else _whole(table, group)
    return ArrowRows(ArrowTable(columns), y, owners)


def _whole(table: Any, column: str) -> Tensor:
    parts = [_view(part, column) for part in table.data.column(column).chunks]
    owners = as_tensor(np.concatenate(parts), column)
    if owners.is_floating_point():
        raise InputError(f"parquet: group: owners must be integers, got {owners.dtype}")
    return owners.long()


def _view(part: Any, column: str) -> np.ndarray[Any, Any]:
    """Return a part of a column as a view of the file: ``(n,)``, or ``(n, k)`` of lists.

    Raises:
        InputError: If it is not numeric, has gaps, or lists of different lengths.
    """
    if part.null_count:
        raise InputError(f"parquet: column {column!r} has gaps; fill or drop these rows first")
    shape = [len(part)]
    while hasattr(part.type, "value_type") and hasattr(part, "flatten"):
        inner = part.flatten()
        width, rest = divmod(len(inner), max(len(part), 1))
        lengths = part.value_lengths() if hasattr(part, "value_lengths") else None
        uneven = lengths is not None and len(lengths.unique()) > 1
        if rest or uneven:
            raise InputError(
                f"parquet: column {column!r} has lists of different lengths; pad them, or give a"
                " map-style data set with data_collator="
            )
        shape.append(width)
        part = inner
    try:
        flat = part.to_numpy(zero_copy_only=not str(part.type).startswith("bool"))
    except Exception as e:
        raise InputError(
            f"parquet: column {column!r} is not numeric ({part.type}); encode it, or leave it out"
            " of inputs"
        ) from e
    return np.asarray(flat).reshape(shape)


def _check_schemas(files: list[Path]) -> int:
    """Refuse files that do not fit together, before anything is read.

    Returns:
        How many rows to keep together in the Arrow file: few parts are read soonest.

    Raises:
        InputError: Naming two files, and the first column that differs.
    """
    parquet = _library("pyarrow.parquet")
    first: dict[str, str] = {}
    size = count = 1
    for path in files:
        try:
            about = parquet.read_metadata(path)
            schema = about.schema.to_arrow_schema()
        except (OSError, ValueError) as e:
            why = str(e).partition("\n")[0]
            raise InputError(
                f"parquet: cannot read {str(path)!r}: {why}; mend or remove it"
            ) from None
        count += about.num_rows
        size += sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        found = {n: str(t) for n, t in zip(schema.names, schema.types, strict=True)}
        first = first or found
        odd = next((n for n in {**first, **found} if first.get(n) != found.get(n)), None)
        if odd is not None:
            raise InputError(
                f"parquet: column {odd!r} is {first.get(odd, 'absent')} in {files[0].name!r} and"
                f" {found.get(odd, 'absent')} in {path.name!r}; write all files with one schema"
            )
    return max(1000, _PART * count // size)


def _digest_of(parts: Chunks) -> str:
    whole = hashlib.sha256(f"{parts[0].dtype}{parts[0].shape[1:]}".encode())
    for part in parts:
        step = max(1, 2**20 // max(1, math.prod(part.shape[1:])))
        for start in range(0, len(part), step):
            whole.update(np.ascontiguousarray(part[start : start + step]).data)
    return whole.hexdigest()


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"parquet: {name.partition('.')[0]} is not installed; pip install datasets"
        ) from None
