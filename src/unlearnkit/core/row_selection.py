"""Which rows of a set a request means."""

from __future__ import annotations

import re
from collections import Counter

import torch
from torch import Tensor

from unlearnkit.core.data import Data, labelled
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import Classes, Groups, Key, Rows, Targets


def rows_to_forget(request: Rows | Classes | Groups | Targets, data: Data) -> Tensor:
    """Return which rows must be forgotten.

    Args:
        request: What must go.
        data: The training rows, N of them.

    Returns:
        A boolean ``(N,)`` on the CPU. A request that names rows that are not there, or that does
        not fit the targets, is refused.
    """
    if isinstance(request, Rows):
        return _at(request, len(data))
    if isinstance(request, Classes):
        return _of_classes(request, data)
    if isinstance(request, Groups):
        return _of_groups(request, data)
    return _in_the_range(request, data)


def in_range(asked: Targets, y: Tensor) -> Tensor:
    """Return which targets ``(N, K)`` lie in a range ``(N,)``; none or all may."""
    values = _column(asked, y)
    mask = torch.ones(len(values), dtype=torch.bool)
    for bound, holds in (
        (asked.above, torch.gt),
        (asked.at_least, torch.ge),
        (asked.below, torch.lt),
        (asked.at_most, torch.le),
    ):
        if bound is not None:
            mask &= holds(values, bound)
    return mask


_NUMBER = re.compile(r"[-+]?\d{1,38}")


def as_kind(key: Key, kind: type) -> Key:
    """Return a key in the type of a case's keys: words do not tell 17 from '17'."""
    if kind is str:
        return str(key)
    return int(key) if isinstance(key, str) and _NUMBER.fullmatch(key) else key


def _numbers(wanted: tuple[Key, ...], who: str, what: str, remedy: str) -> tuple[int, ...]:
    """Return keys as numbers; refuse those that are none, without quoting them."""
    keys = [as_kind(key, int) for key in wanted]
    numbers = tuple(n for n in keys if isinstance(n, int))
    if len(numbers) < len(keys):
        raise InputError(
            f"{who}: {len(keys) - len(numbers)} of {len(keys)} are no {what} (a whole number or a"
            f" range; write 3 or 0:100); {remedy}"
        )
    return numbers


def positions(wanted: tuple[Key, ...], count: int) -> Tensor:
    """Return positions ``(k,)`` that keys mean in a set of so many rows; each is named once."""
    rows = _numbers(wanted, "rows", "position", "or name rows by keys: Case(keys=...)")
    outside = [r for r in rows if not 0 <= r < count]
    if outside:
        raise InputError(
            f"rows: {outside[0]} is out of range; the training set has rows 0 to {count - 1}"
        )
    _once(rows, "rows")
    return torch.tensor(rows, dtype=torch.long)


def _at(asked: Rows, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[positions(asked.rows, count)] = True
    return mask


def _of_classes(asked: Classes, data: Data) -> Tensor:
    if not labelled(data):
        raise UnsupportedError("classes: the rows have no targets; name rows or groups")
    if data.y.is_floating_point() or data.y.ndim != 1:
        raise UnsupportedError(
            f"classes: a class request needs one integer target a row, got {data.y.dtype}"
            f" {tuple(data.y.shape)}; name rows or groups"
        )
    return _among(data.y, asked.classes, "class")


def _of_groups(asked: Groups, data: Data) -> Tensor:
    if data.group is None:
        raise UnsupportedError(
            "groups: a group request needs data with owners; give group= with the data, or name"
            " rows"
        )
    groups = _numbers(asked.groups, "group", "owner", "owners of this case are numbers")
    return _among(data.group, groups, "group")


def _in_the_range(asked: Targets, data: Data) -> Tensor:
    if not labelled(data):
        raise UnsupportedError("targets: the rows have no targets; name rows or groups")
    y = _column(asked, data.y)
    mask = in_range(asked, data.y)
    count = int(mask.sum())
    if count in {0, len(y)}:
        raise InputError(
            f"forget: {asked.words} names {'all rows' if count else 'no row'} ({count} of"
            f" {len(y)}); targets lie between {float(y.min()):g} and {float(y.max()):g}: name"
            " some and keep some"
        )
    return mask


def _column(asked: Targets, y: Tensor) -> Tensor:
    y = y.reshape(len(y), -1).cpu()
    if not y.is_floating_point():
        raise UnsupportedError(
            f"targets: a range needs real targets, got {y.dtype}; name classes, rows or groups"
        )
    width = y.shape[1]
    if asked.column is None and width > 1:
        raise InputError(
            f"targets: rows have {width} targets, got a range for none of them; write"
            f" {asked.words.replace('target', 'target[0]')}"
        )
    column = asked.column or 0
    if not 0 <= column < width:
        raise InputError(f"targets: there are targets 0 to {width - 1}, got {column}; name one")
    return y[:, column]


def _among(values: Tensor, wanted: tuple[int, ...], what: str) -> Tensor:
    values = values.cpu()
    _once(wanted, what)
    have = sorted(set(values.tolist()))
    absent = sorted(set(wanted) - set(have))
    if absent:
        shown = ", ".join(map(str, have[:12]))
        more = f", … ({len(have)} in all)" if len(have) > 12 else ""
        raise InputError(f"{what}: no row of {what} {absent[0]}; there are: {shown}{more}")
    return torch.isin(values, torch.tensor(wanted, dtype=values.dtype))


def _once(values: tuple[int, ...], what: str) -> None:
    value, times = next(iter(Counter(values).most_common(1)), (0, 0))
    if times > 1:
        raise InputError(f"{what}: {value} is named twice; name each once")
