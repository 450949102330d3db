"""Rows in the forms that users have them: arrays, tensors, data sets, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from unlearnkit.core.border import first_line, user_code_error
from unlearnkit.core.data import (
    Data,
    Inputs,
    MapData,
    TensorData,
    as_inputs,
    as_named_tensors,
    as_tensor,
    check_finite,
    index_rows,
    preserve_rng,
)
from unlearnkit.core.errors import InputError
from unlearnkit.core.given_rows import GivenRows
from unlearnkit.core.hidden_targets import no_targets

D = TypeVar("D", bound=TensorData | MapData)

EXPECTED = "expected a pair (x, y), a map-style Dataset of pairs, a Hugging Face set or a DataFrame"


def as_data(
    source: Any,
    *,
    name: str,
    target: str | None = None,
    inputs: tuple[str, ...] = (),
    group: Any = None,
    workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Data:
    """Return rows in the library's form, from any of the forms that users have.

    Args:
        source: A pair ``(x, y)`` of arrays or tensors, where ``x`` may be a dict or a tuple and
            ``y`` None for rows without targets; a
            map-style torch ``Dataset`` of such pairs; a Hugging Face ``Dataset``; a ``DataFrame``,
            whose columns become one float32 matrix; or ``Data``.
        name: What to call it in an error.
        target: The target column, for tables.
        inputs: The input columns, for tables; all but target and group when empty.
        group: The owner of each row, an array ``(N,)`` of integers.
        workers: Loader processes for map-style sets.
        collate: Makes a batch of the inputs of map-style rows, which may then differ in length.

    Returns:
        The rows; missing ones, different counts and values that are not finite are refused.
    """
    data = _as_data(source, name, target, inputs, group, workers, collate)
    ours = isinstance(source, TensorData | MapData)
    return data if ours else replace(data, given=GivenRows(source))


def _as_data(
    source: Any,
    name: str,
    target: str | None,
    inputs: tuple[str, ...],
    group: Any,
    workers: int,
    collate: Callable[[list[Any]], Any] | None,
) -> TensorData | MapData:
    if collate is not None and hasattr(source, "column_names"):
        inputs = input_columns(source, name=name, target=target, inputs=inputs, group=group)
        return _from_map(source, name, group, workers, collate, (target, inputs))
    if is_table(source):
        wanted = input_columns(source, name=name, target=target, inputs=inputs, group=group)
        assert target is not None
        read = _from_hub if hasattr(source, "column_names") else _from_frame
        return _checked(read(source, name, target, wanted, group), name)
    pair = isinstance(source, tuple | list) and len(source) == 2
    ready = isinstance(source, TensorDataset | TensorData | MapData)
    if pair or ready or not _is_map(source):
        _refuse_columns(source, name, target, inputs)
    if isinstance(source, TensorData | MapData):
        owned = source if group is None else replace(source, group=_owners(name, group))
        return _checked(owned, name)
    if isinstance(source, TensorDataset):
        *x, y = source.tensors
        source = (x[0] if len(x) == 1 else tuple(x), y)
    if isinstance(source, tuple | list) and len(source) == 2:
        rows = as_inputs(source[0])
        y = _none(rows) if source[1] is None else as_tensor(source[1], f"{name} y")
        return _checked(TensorData(rows, y, _owners(name, group)), name)
    if _is_map(source):
        return _from_map(source, name, group, workers, collate, (target, inputs))
    hint = "; give its .dataset" if hasattr(source, "dataset") else ""
    raise InputError(f"{name}: {EXPECTED}, got {type(source).__name__}{hint}")


def is_table(source: Any) -> bool:
    """Return whether the source has named columns."""
    hub = hasattr(source, "column_names") and hasattr(source, "with_format")
    return hub or (hasattr(source, "columns") and hasattr(source, "iloc"))


def owners_of_parts(group: Any) -> tuple[Any, Any]:
    """Return the owners of two parts.

    Args:
        group: A column that both tables have, a pair of arrays, or None.

    Returns:
        Owners of the first and of the second, each as ``as_data`` takes them.

    Raises:
        InputError: If they are neither.
    """
    if group is None or isinstance(group, str):
        return group, group
    if not isinstance(group, tuple | list) or len(group) != 2:
        raise InputError(
            "group: give a pair, the owners of the rows to forget and of the rows that stay, or a"
            f" column's name; got {type(group).__name__}"
        )
    return group[0], group[1]


def column_values(source: Any, what: str, given: Any) -> Any:
    """Return the values of a table's column, where a name is given; else what is given.

    Args:
        source: The rows.
        what: What the column holds, for an error.
        given: The name of a column, or values.

    Returns:
        The values.

    Raises:
        InputError: If a name is given for rows that are no table.
    """
    if not isinstance(given, str) or source is None:
        return None if source is None else given
    if not is_table(source):
        raise InputError(f"{what}: a column name, got {given!r}, needs a table; give an array (N,)")
    column = source[given]
    return column if hasattr(column, "tolist") else column[:]


def input_columns(
    table: Any,
    *,
    name: str,
    target: str | None,
    inputs: tuple[str, ...],
    group: Any,
    keys: Any = None,
) -> tuple[str, ...]:
    """Return the input columns of a table, in order.

    Args:
        table: A Hugging Face ``Dataset`` or a ``DataFrame``.
        name: What to call it in an error.
        target: The target column.
        inputs: The input columns as requested; all but target and group when empty.
        group: The owners; a text names their column.
        keys: The rows' own ids; likewise.

    Returns:
        The columns.

    Raises:
        InputError: If a column is missing, there twice, or both input and target.
    """
    have = table.column_names if hasattr(table, "column_names") else list(table.columns)
    if isinstance(have, Mapping):
        raise InputError(f"{name}: got all splits of a data set; give one: {', '.join(have)}")
    if have is None or not hasattr(table, "__len__"):
        raise InputError(f"{name}: {EXPECTED}, got {type(table).__name__}, which has no length")
    twice = [c for c, times in Counter(have).items() if times > 1]
    if twice:
        raise InputError(f"{name}: column {twice[0]!r} is there twice; rename one")
    shown = ", ".join(map(str, have))
    if target is None or target not in have:
        raise InputError(
            f"{name}: target: name the target column, got {target!r}; there are: {shown}"
        )
    absent = [c for c in inputs if c not in have]
    if absent:
        raise InputError(f"{name}: no column {absent[0]!r}; there are: {shown}")
    named = {k: v for k, v in (("group", group), ("keys", keys)) if isinstance(v, str)}
    lost = next((k for k, column in named.items() if column not in have), None)
    if lost is not None:
        raise InputError(f"{name}: no {lost} column {named[lost]!r}; there are: {shown}")
    if target in inputs:
        raise InputError(f"{name}: inputs: {target!r} is the target; it cannot be an input too")
    skip = {target, *named.values()}
    wanted = tuple(inputs) or tuple(c for c in have if c not in skip)
    if not wanted:
        raise InputError(f"{name}: no input column besides {', '.join(map(str, skip))}; add one")
    return wanted


def _none(x: Inputs) -> Tensor:
    first = next(iter(as_named_tensors(x).values()), torch.empty(0))
    return no_targets(len(first) if first.ndim else 0)


def _is_map(source: Any) -> bool:
    if isinstance(source, tuple | str | bytes | Mapping | IterableDataset):
        return False
    if hasattr(source, "dtype") or not hasattr(source, "__len__"):
        return False
    return isinstance(source, Dataset) or hasattr(source, "__getitem__")


def _owners(name: str, group: Any) -> Tensor | None:
    if group is None:
        return None
    owners = as_tensor(group, f"{name} group").cpu()
    if owners.is_floating_point():
        raise InputError(
            f"{name}: group: owners must be integers, got {owners.dtype}; encode them first"
        )
    return owners


def _from_frame(
    frame: Any, name: str, target: str, inputs: tuple[str, ...], group: Any
) -> TensorData:
    for column in inputs:
        if frame[column].dtype.kind not in "biuf":
            raise InputError(
                f"{name}: column {column!r} is not numeric ({frame[column].dtype}); encode it or"
                " leave it out of inputs"
            )
    x = frame[list(inputs)].to_numpy(dtype="float32", na_value=float("nan"))
    y = as_tensor(frame[target], f"{name} {target}")
    return TensorData(as_tensor(x, name), y, _owners(name, group), columns=tuple(map(str, inputs)))


def _from_hub(
    source: Any, name: str, target: str, inputs: tuple[str, ...], group: Any
) -> TensorData:
    rows = source.with_format("numpy")
    x = {c: as_tensor(rows[c][:], f"{name} {c}") for c in inputs}
    x = {c: t.float() if t.dtype == torch.float64 else t for c, t in x.items()}
    only = next(iter(x.values())) if len(x) == 1 else x
    return TensorData(only, as_tensor(rows[target][:], f"{name} {target}"), _owners(name, group))


TARGETS = ("labels", "label", "label_ids")
"""What a Trainer of transformers calls the target of a row that is a dict."""


class _Named:
    """Rows that are dicts, as a Trainer takes them: as pairs of the inputs and the target."""

    def __init__(self, source: Any, target: str | None, inputs: tuple[str, ...]) -> None:
        self.source, self.target, self.names = source, target, inputs

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[dict[str, Any], Any]:
        row = self.source[i]
        target = self.target or next((t for t in TARGETS if t in row), None)
        if target not in row:
            raise InputError(
                f"rows: a row has no {target or 'labels'!r}; name the target: target=, one of"
                f" {', '.join(map(str, row))}"
            )
        names = self.names or [n for n in row if n != target and n not in TARGETS]
        return {n: row[n] for n in names}, row[target]


class _Longest:
    """The longest value of each input of rows that differ in length, as zeros."""

    def __init__(self) -> None:
        self.lengths: dict[str, set[int]] = {}
        self.rows: dict[str, Any] = {}

    def note(self, x: Any, y: Any) -> Any:
        """Look at a row's inputs; return its target."""
        for name, value in x.items() if isinstance(x, Mapping) else [("x", x)]:
            if isinstance(value, list) or bool(getattr(value, "ndim", 0)):
                seen = self.lengths.setdefault(name, set())
                if len(value) > max(seen, default=-1):
                    self.rows[name] = x
                seen.add(len(value))
        return y

    def padding(self, collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        """Return a collator that makes all batches as wide as the longest row."""
        rows = {id(self.rows[n]): self.rows[n] for n, seen in self.lengths.items() if len(seen) > 1}
        return _PaddedAlike(collate, [_zeros(row) for row in rows.values()]) if rows else collate


class _PaddedAlike:
    """A collator whose batches have one width, so that rows of several batches can be joined."""

    def __init__(self, collate: Callable[[list[Any]], Any], longest: list[Any]) -> None:
        self.collate, self.longest = collate, longest

    def __call__(self, rows: list[Any]) -> Inputs:
        return index_rows(as_inputs(self.collate([*rows, *self.longest])), torch.arange(len(rows)))


def _zeros(value: Any) -> Any:
    """Return a row of the same lengths without its content: it may be deleted one day."""
    if isinstance(value, Mapping):
        return {name: _zeros(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_zeros(v) for v in value]
    return value * 0 if hasattr(value, "__mul__") and not isinstance(value, str) else value


def _refuse_columns(source: Any, name: str, target: str | None, inputs: tuple[str, ...]) -> None:
    if target is not None or inputs:
        raise InputError(
            f"{name}: {target or inputs[0]!r} names a column, but the rows are no table, got"
            f" {type(source).__name__}; leave target and inputs out"
        )


def _from_map(
    source: Any,
    name: str,
    group: Any,
    workers: int,
    collate: Callable[[list[Any]], Any] | None,
    columns: tuple[str | None, tuple[str, ...]],
) -> MapData:
    count = _length(source, name)
    if count == 0:
        raise InputError(f"{name}: the data set is empty")
    with preserve_rng():
        if isinstance(_row(source, 0, name), Mapping):
            source = _Named(source, *columns)
        else:
            _refuse_columns(source, name, *columns)
        # The items' own, not an attribute's: a set may remap, corrupt or filter what it holds.
        longest = _Longest()
        each = (longest.note(*_item(source, i, name, collate)) for i in range(count))
        y = _stacked([as_tensor(t, f"{name} target") for t in each], name)
    collate = collate and longest.padding(collate)
    return _checked(MapData(source, y, _owners(name, group), workers, collate), name)


def _length(source: Any, name: str) -> int:
    try:
        return len(source)
    except Exception as e:  # the data set is the user's own code
        raise user_code_error(
            e,
            f"{name}: the length of the data set cannot be read: {type(e).__name__}:"
            f" {first_line(e)}; its __len__ must return how many rows there are",
        ) from e


def _row(source: Any, i: int, name: str) -> Any:
    try:
        return source[i]
    except IndexError as e:
        raise InputError(
            f"{name}: row {i} is not there ({first_line(e)}), but the data set states a length of"
            f" {len(source)}; mend its __len__"
        ) from e
    except Exception as e:  # the data set is the user's own code
        raise user_code_error(
            e,
            f"{name}: row {i} cannot be read: {type(e).__name__}: {first_line(e)}; mend the data"
            " set's __getitem__, or leave the row out with Subset",
        ) from e


def _item(
    source: Any, i: int, name: str, collate: Callable[[list[Any]], Any] | None
) -> tuple[Any, Any]:
    item = _row(source, i, name)
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise InputError(
            f"{name}: rows must be pairs (x, y), row {i} is a {type(item).__name__}{size}; wrap the"
            " data set so that it returns pairs"
        )
    if collate is not None:
        return item[0], item[1]
    try:
        default_collate([item[0]])
    except TypeError:
        raise InputError(
            f"{name}: x of row {i} cannot be made a tensor, got {type(item[0]).__name__}; transform"
            " it to numbers in the data set"
        ) from None
    return item[0], item[1]


def _stacked(targets: list[Tensor], name: str) -> Tensor:
    odd = next((i for i, t in enumerate(targets) if t.shape != targets[0].shape), None)
    if odd is not None:
        raise InputError(
            f"{name}: targets differ in shape: {tuple(targets[0].shape)} in row 0,"
            f" {tuple(targets[odd].shape)} in row {odd}; give each row the same"
        )
    return torch.stack(targets)


def _checked(data: D, name: str) -> D:
    """Refuse rows that do not fit together, are none or, as far as they are at hand, not finite."""
    count = len(data.y) if data.y.ndim else 0
    known: dict[str, Tensor] = as_named_tensors(data.x) if isinstance(data, TensorData) else {}
    for key, t in known.items():
        rows = len(t) if t.ndim else 0
        if rows != count:
            raise InputError(
                f"{name}: {key} has {rows} rows and y has {count}; give one target a row"
            )
    if not count:
        raise InputError(f"{name}: the data set is empty")
    for key, t in {**known, "y": data.y}.items():
        check_finite(name, key, t)
    if data.group is not None and data.group.shape != (count,):
        raise InputError(
            f"{name}: group has shape {tuple(data.group.shape)} for {count} rows; give one owner a"
            " row"
        )
    return data
