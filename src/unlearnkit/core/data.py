"""Rows, views of rows, and batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from unlearnkit.core.digest import digest, tensor_digest
from unlearnkit.core.errors import InputError, UndeclaredReadError

if TYPE_CHECKING:
    from unlearnkit.core.runtime import Cost, Runtime

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Some rows on one device: ``x (B, ...)`` or a dict of such, ``y (B, ...)``, ``row (B,)``."""

    x: Inputs
    y: Tensor
    row: Tensor
    cost: Cost | None = None
    """Counts the rows that go through a model; None where they are counted otherwise."""

    def __len__(self) -> int:
        return self.row.shape[0]

    def pick(self, keep: Tensor) -> Batch:
        """Return the rows where a boolean ``(B,)`` is true."""
        return replace(self, x=take(self.x, keep), y=self.y[keep], row=self.row[keep.cpu()])


class Data(Protocol):
    """All rows of a set: their targets and owners at hand, their inputs on demand."""

    @property
    def y(self) -> Tensor:
        """Return the targets ``(N, ...)``."""
        ...

    @property
    def group(self) -> Tensor | None:
        """Return the owner (subject, client) of each row ``(N,)``, if rows have owners."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows, in this order, ``size`` at a time."""
        ...

    def key(self) -> str:
        """Return the content address of all rows."""
        ...

    def with_targets(self, y: Tensor) -> Data:
        """Return the same rows with other targets."""
        ...


@dataclass(frozen=True)
class TensorData:
    """Rows in memory, indexed and never looped over: ``x (N, ...)``, ``y (N, ...)``."""

    x: Inputs
    y: Tensor
    group: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows, in this order, ``size`` at a time."""
        for part in torch.split(order, size):
            if isinstance(self.x, Tensor):
                yield self.x.index_select(0, part)
            else:
                yield {k: t.index_select(0, part) for k, t in self.x.items()}

    def with_targets(self, y: Tensor) -> TensorData:
        """Return the same rows with other targets."""
        return replace(self, y=y)

    def key(self) -> str:
        """Return the content address of all rows."""
        return self._key

    @cached_property
    def _key(self) -> str:
        parts = {"": self.x} if isinstance(self.x, Tensor) else self.x
        return digest({
            "x": {k: tensor_digest(t) for k, t in parts.items()},
            "y": tensor_digest(self.y),
        })


@dataclass(frozen=True)
class MapData:
    """Rows of a map-style data set, read by a loader as they are asked for; may exceed memory."""

    source: Any
    y: Tensor
    group: Tensor | None = None
    workers: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, order: Tensor, size: int, rng: torch.Generator) -> Iterator[Inputs]:
        """Yield the inputs of rows, in this order, ``size`` at a time."""
        loader: DataLoader[Any] = DataLoader(
            self.source,
            batch_size=size,
            sampler=order.tolist(),
            num_workers=self.workers,
            generator=rng,
        )
        for item in loader:
            yield as_inputs(item[0])

    def with_targets(self, y: Tensor) -> MapData:
        """Return the same rows with other targets."""
        return replace(self, y=y)

    def key(self) -> str:
        """Return the content address of all rows; reads them once."""
        return self._key

    @cached_property
    def _key(self) -> str:
        rng = torch.Generator().manual_seed(0)
        parts = [
            tensor_digest(x) if isinstance(x, Tensor) else digest({k: tensor_digest(t) for k, t in x.items()})
            for x in self.inputs(torch.arange(len(self)), 1024, rng)
        ]
        return digest({"x": parts, "y": tensor_digest(self.y)})


@dataclass(frozen=True)
class View:
    """Some rows of a data set, in an order; copies nothing."""

    data: Data
    rows: Tensor
    sealed: str = ""

    @classmethod
    def all(cls, data: Data) -> View:
        """Return the view of all rows, in order."""
        return cls(data, torch.arange(len(data)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def y(self) -> Tensor:
        """Return the targets of these rows ``(n, ...)``."""
        self._open()
        return self.data.y[self.rows]

    def seal(self, why: str) -> View:
        """Return a view that raises when it is read."""
        return replace(self, sealed=why)

    def pick(self, keep: Tensor) -> View:
        """Return the rows where a boolean ``(n,)`` is true, or at positions ``(k,)``."""
        return replace(self, rows=self.rows[keep])

    def sample(self, count: int, rt: Runtime, stream: str) -> View:
        """Return up to ``count`` of these rows, drawn without replacement from a stream."""
        self._open()
        if count >= len(self):
            return self
        return self.pick(torch.randperm(len(self), generator=rt.rng(stream))[:count])

    def batches(self, size: int, rt: Runtime, *, shuffle: str | None = None) -> Iterator[Batch]:
        """Yield the rows as batches on the runtime's device.

        Args:
            size: Rows in a batch; the last may be shorter. When shuffled, a last batch of one row
                joins the one before it, because batch normalisation cannot train on one row.
            rt: Where the batches go, where the order comes from, and who counts.
            shuffle: Name of the random stream that orders the rows; in order when None.

        Yields:
            The batches.

        Raises:
            UndeclaredReadError: If the view is sealed.
        """
        self._open()
        rows, y, name = self.rows, self.data.y, shuffle or "in order"
        if shuffle is not None:
            rows = rows[torch.randperm(len(rows), generator=rt.rng(shuffle))]
        cut = len(rows)
        if shuffle is not None and size > 1 and cut > size and cut % size == 1:
            cut -= size + 1
        for part, width in ((rows[:cut], size), (rows[cut:], size + 1)):
            if not len(part):
                continue
            inputs = self.data.inputs(part, width, rt.rng(f"{name}/loader"))
            for x, row in zip(inputs, torch.split(part, width), strict=True):
                yield Batch(_to(x, rt), y.index_select(0, row).to(rt.device), row, rt.cost)

    def forever(self, size: int, rt: Runtime, *, shuffle: str) -> Iterator[Batch]:
        """Yield batches without end, in a new order each time round; keeps none of them."""
        turn = 0
        while True:
            yield from self.batches(size, rt, shuffle=f"{shuffle}/{turn}")
            turn += 1

    def key(self) -> str:
        """Return the content address of these rows, order included."""
        return digest({"data": self.data.key(), "rows": tensor_digest(self.rows)})

    def _open(self) -> None:
        if self.sealed:
            raise UndeclaredReadError(self.sealed)


def take(x: Inputs, rows: Tensor) -> Inputs:
    """Return some rows of inputs, by position or by mask."""
    if isinstance(x, Tensor):
        return x[rows]
    return {k: t[rows] for k, t in x.items()}


def _to(x: Inputs, rt: Runtime) -> Inputs:
    if isinstance(x, Tensor):
        return x.to(rt.device)
    return {k: t.to(rt.device) for k, t in x.items()}


def as_inputs(x: Any) -> Inputs:
    """Return inputs as a tensor or a dict of tensors, whatever array type they came as.

    Args:
        x: A tensor, an array, a mapping of names to such, or a sequence of such (arguments by
            position).

    Returns:
        Float inputs as float32 or float64 (half precision kept), integers as they are.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(x, Mapping):
        return {str(k): as_tensor(v, str(k)) for k, v in x.items()}
    if isinstance(x, tuple) or (isinstance(x, list) and x and isinstance(x[0], Tensor)):
        return {str(i): as_tensor(v, f"argument {i}") for i, v in enumerate(x)}
    return as_tensor(x, "x")


def as_tensor(x: Any, name: str) -> Tensor:
    """Return an array-like as a tensor.

    Args:
        x: A tensor, an array, or nested sequences of numbers.
        name: What to call it in an error.

    Returns:
        The tensor; memory is shared where that is possible.

    Raises:
        InputError: If it cannot be one.
    """
    if isinstance(x, Tensor):
        return x.detach()
    if hasattr(x, "to_numpy"):
        x = x.to_numpy()
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as e:
        raise InputError(
            f"{name}: cannot be made a tensor, got {type(x).__name__}: {str(e).splitlines()[0]};"
            " encode text and categories as numbers first"
        ) from None


def as_data(
    source: Any,
    *,
    name: str,
    target: str | None = None,
    inputs: tuple[str, ...] = (),
    group: Any = None,
    workers: int = 0,
) -> Data:
    """Return rows in the library's form, from any of the forms that users have.

    Args:
        source: A pair ``(x, y)`` of arrays or tensors, where ``x`` may be a dict; a torch map-style
            ``Dataset`` of such pairs; a Hugging Face ``Dataset``; a ``DataFrame``; or ``Data``.
        name: What to call it in an error.
        target: The target column, for tables.
        inputs: The input columns, for tables; all numeric ones but target and group when empty.
        group: The owner of each row: an array ``(N,)``, or a column's name for tables.
        workers: Loader processes for map-style sets.

    Returns:
        The rows.

    Raises:
        InputError: If rows are missing, of different counts, or not finite.
    """
    if isinstance(source, TensorData | MapData):
        return source
    if hasattr(source, "column_names") and hasattr(source, "with_format"):
        return _checked(_from_hub(source, name, target, inputs, group), name)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return _checked(_from_frame(source, name, target, inputs, group), name)
    if isinstance(source, TensorDataset):
        *x, y = source.tensors
        pair = (x[0] if len(x) == 1 else tuple(x), y)
        return _checked(_from_pair(pair, name, group), name)
    if isinstance(source, Dataset) or (
        hasattr(source, "__getitem__") and isinstance(source, Sized) and not _is_pair(source)
    ):
        return _from_map(source, name, group, workers)
    if _is_pair(source):
        return _checked(_from_pair(source, name, group), name)
    raise InputError(
        f"{name}: expected a pair (x, y), a Dataset or a DataFrame, got {type(source).__name__}"
    )


def _is_pair(source: Any) -> TypeGuard[tuple[Any, Any]]:
    return isinstance(source, tuple | list) and len(source) == 2


def _from_pair(pair: tuple[Any, Any], name: str, group: Any) -> TensorData:
    x, y = as_inputs(pair[0]), as_tensor(pair[1], f"{name} y")
    return TensorData(x, y, _owners(group))


def _owners(group: Any) -> Tensor | None:
    if group is None:
        return None
    if isinstance(group, str):
        raise InputError(f"group: a column name, got {group!r}, needs a table; give an array (N,)")
    owners = as_tensor(group, "group")
    if owners.is_floating_point():
        raise InputError("group: owners must be integers; encode them first")
    return owners


def _from_frame(
    frame: Any, name: str, target: str | None, inputs: tuple[str, ...], group: Any
) -> TensorData:
    columns = [str(c) for c in frame.columns]
    owners = frame[group].to_numpy() if isinstance(group, str) and group in columns else group
    wanted = _columns(columns, name, target, inputs, group)
    for c in wanted:
        if frame[c].dtype.kind not in "biuf":
            raise InputError(
                f"{name}: column {c!r} is not numeric ({frame[c].dtype}); encode it or leave it out"
                " of inputs"
            )
    x = torch.as_tensor(frame[wanted].to_numpy(dtype="float32", na_value=float("nan")))
    y = torch.as_tensor(frame[target].to_numpy().copy())
    return TensorData(x, y, _owners(owners))


def _from_hub(
    source: Any, name: str, target: str | None, inputs: tuple[str, ...], group: Any
) -> TensorData:
    columns = list(source.column_names)
    wanted = _columns(columns, name, target, inputs, group)
    rows = source.with_format("numpy")
    x = {c: as_tensor(rows[c][:], f"{name} {c}") for c in wanted}
    x = {c: t.float() if t.dtype == torch.float64 else t for c, t in x.items()}
    owners = rows[group][:] if isinstance(group, str) and group in columns else group
    only = next(iter(x.values())) if len(x) == 1 else x
    return TensorData(only, as_tensor(rows[target][:], f"{name} {target}"), _owners(owners))


def _columns(
    columns: list[str], name: str, target: str | None, inputs: tuple[str, ...], group: Any
) -> list[str]:
    if target is None or target not in columns:
        raise InputError(
            f"{name}: target: name the target column, got {target!r}; there are: {', '.join(columns)}"
        )
    missing = [c for c in inputs if c not in columns]
    if missing:
        raise InputError(f"{name}: no column {missing[0]!r}; there are: {', '.join(columns)}")
    if isinstance(group, str) and group not in columns:
        raise InputError(f"{name}: no group column {group!r}; there are: {', '.join(columns)}")
    skip = {target, group} if isinstance(group, str) else {target}
    return list(inputs) or [c for c in columns if c not in skip]


def _from_map(source: Any, name: str, group: Any, workers: int) -> MapData:
    if len(source) == 0:
        raise InputError(f"{name}: the data set is empty")
    for attribute in ("targets", "labels"):
        known = getattr(source, attribute, None)
        if known is not None and len(known) == len(source):
            y = as_tensor(known, f"{name}.{attribute}")
            break
    else:
        items = (source[i] for i in range(len(source)))
        y = torch.stack([as_tensor(item[1], f"{name} target") for item in items])
    owners = _owners(group)
    _same_count(name, len(y), owners)
    _finite(name, "y", y)
    return MapData(source, y, owners, workers)


def _checked(data: TensorData, name: str) -> TensorData:
    parts = {"x": data.x} if isinstance(data.x, Tensor) else data.x
    for key, t in parts.items():
        if t.ndim == 0 or len(t) != len(data.y):
            rows = len(t) if t.ndim else 0
            raise InputError(
                f"{name}: {key} has {rows} rows and y has {len(data.y)}; give one target a row"
            )
        _finite(name, key, t)
    if not len(data.y):
        raise InputError(f"{name}: the data set is empty")
    _finite(name, "y", data.y)
    _same_count(name, len(data.y), data.group)
    return data


def _same_count(name: str, count: int, group: Tensor | None) -> None:
    if group is not None and group.shape != (count,):
        raise InputError(
            f"{name}: group has shape {tuple(group.shape)} for {count} rows; give one owner a row"
        )


def _finite(name: str, part: str, t: Tensor) -> None:
    if t.is_floating_point() and not torch.isfinite(t).all():
        bad = (~torch.isfinite(t)).reshape(len(t), -1).any(1).nonzero()[:, 0]
        raise InputError(
            f"{name}: {part} is not finite in {len(bad)} of {len(t)} rows, first row {int(bad[0])};"
            " remove or impute them"
        )
