"""Row edits: what a request for features or labels changes in rows that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unlearnkit.core.data import (
    Data,
    Inputs,
    TensorData,
    as_named_tensors,
    labelled,
)
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.given_rows import GivenRows, RelabelledRows
from unlearnkit.core.request import Features, Key, Labels
from unlearnkit.core.row_selection import positions
from unlearnkit.core.task import Task
from unlearnkit.core.text import one_line


@dataclass(frozen=True)
class RowEdit:
    """The corrected training set, and what holds for rows to come."""

    mask: Tensor
    """Which training rows are changed, a boolean ``(N,)``."""

    data: Data
    """All training rows, corrected."""

    in_use: Callable[[Data], Data] | None = None
    """Makes of any rows what the model gets from then on; None where these stay as they are."""


def edit_rows(
    request: Features | Labels,
    data: Data,
    task: Task,
    *,
    own_loop: bool,
    names: Sequence[Key] = (),
) -> RowEdit:
    """Return what a request changes.

    Args:
        request: With positions for keys.
        data: The training rows, N of them.
        task: Says which targets are valid.
        own_loop: Whether a training loop of the user's own gets the rows as the user gave them.
        names: What the user calls the rows of corrected labels; positions when empty.

    Returns:
        The corrected rows. Features, rows or targets that are not there, and inputs that are read
        on demand, so that they cannot be replaced, are refused.

    Raises:
        InputError: If the request changes nothing.
    """
    if isinstance(request, Labels):
        return _relabelled(request, data, task, names or request.rows)
    edit = (
        _without_phrase(request, data, task, own_loop=own_loop)
        if request.phrase
        else _without_features(request, data, own_loop=own_loop)
    )
    if not bool(edit.mask.any()):
        raise InputError(
            f"features: {one_line(request.words, 80)} changes no row: the values are there already;"
            " name another"
        )
    return edit


def _relabelled(request: Labels, data: Data, task: Task, names: Sequence[Key]) -> RowEdit:
    if not labelled(data):
        raise UnsupportedError("labels: the rows have no targets to correct")
    if data.y.ndim != 1 and data.y[0].numel() != 1:
        raise UnsupportedError(
            f"labels: rows have targets of shape {tuple(data.y.shape[1:])}; corrections of one"
            " number a row are supported"
        )
    at = positions(request.rows, len(data))
    wanted = torch.tensor([target for _, target in request.labels], dtype=torch.float64)
    y = data.y.clone()
    new = wanted.to(y.dtype).reshape(len(at), *y.shape[1:])
    if not torch.equal(new.double().flatten(), wanted.float().double()) and not (
        y.is_floating_point()
    ):
        raise InputError("labels: classes are whole numbers; give the right class of each row")
    same = (new == y[at]).reshape(len(at), -1).all(1)
    if bool(same.any()):
        first = int(same.nonzero()[0, 0])
        raise InputError(
            f"labels: {int(same.sum())} of {len(at)} rows have the given target already, such as"
            f" row {_said(names[first])}; leave them out"
        )
    y[at] = new
    try:
        checked = task.targets(y)
    except InputError as e:
        why = str(e).removeprefix("y: ")
        raise InputError(f"labels: {_refused_row(new, names, task)}{why}") from None
    changed = torch.zeros(len(data), dtype=torch.bool)
    changed[at] = True
    return RowEdit(changed, data.with_targets(checked, _given_labels(data, checked)))


def _refused_row(new: Tensor, names: Sequence[Key], task: Task) -> str:
    """Return which row's new target the task refuses, as the begin of a message."""
    for target, name in zip(new, names, strict=True):
        try:
            task.targets(target[None])
        except InputError:
            return f"row {_said(name)}: "
    return ""


def _given_labels(data: Data, y: Tensor) -> GivenRows | None:
    """Return the rows as the user gave them with other targets, where there is such a form."""
    if data.given is None:
        return None
    source = data.as_given().take()
    if isinstance(source, tuple | list) and len(source) == 2:
        return GivenRows((source[0], y if isinstance(source[1], Tensor) else y.numpy()))
    if hasattr(source, "iloc") or hasattr(source, "column_names"):
        raise UnsupportedError(
            "labels: a training loop of your own gets the table as you gave it, and its targets"
            " cannot be replaced; give the case a pair (x, y)"
        )
    return GivenRows(RelabelledRows(source, y))


def _without_features(request: Features, data: Data, *, own_loop: bool) -> RowEdit:
    if not isinstance(data, TensorData):
        raise UnsupportedError(
            "features: the training set is read on demand, so that inputs cannot be replaced; give"
            " a pair (x, y) of arrays, or a data set that reads them without the feature as the"
            " retrain set"
        )
    replaced = _replacement(request, data)
    x = replaced(data.x)
    changed = _different(data.x, x)
    if request.rows is not None:
        wanted = torch.zeros(len(data), dtype=torch.bool)
        wanted[positions(request.rows, len(data))] = True
        changed &= wanted
        x = _where(wanted, x, data.x)

    def in_use(rows: Data) -> Data:
        if not isinstance(rows, TensorData):
            raise UnsupportedError(
                "features: test and validation rows must be arrays as the training rows are, for"
                " the feature to be replaced in them too"
            )
        return replace(rows, x=replaced(rows.x), given=None)

    edited = replace(data, x=x, given=_given_inputs(data, x) if own_loop else None)
    return RowEdit(changed, edited, in_use if request.rows is None else None)


def _without_phrase(request: Features, data: Data, task: Task, *, own_loop: bool) -> RowEdit:
    """Replace a phrase in a text whose windows, in order, are the inputs ``(N, T)``."""
    text = _text(data)
    assert isinstance(data, TensorData)
    assert isinstance(data.x, Tensor)
    phrase, put = torch.tensor(request.phrase), torch.tensor(request.replacement)
    width = data.x.shape[1]
    found = text.unfold(0, len(phrase), 1) == phrase if len(phrase) <= len(text) else None
    starts = [] if found is None else found.all(1).nonzero()[:, 0].tolist()
    if not starts:
        raise InputError(
            "features: the phrase does not stand in the training text; name one that does"
        )
    for at in starts:
        text[at : at + len(put)] = put
    x, y = text.unfold(0, width, 1)[:-1].contiguous(), text[width:].to(data.y.dtype)
    try:
        y = task.targets(y)
    except InputError as e:
        raise InputError(f"features: replacement: {e}") from None
    changed = (x != data.x).any(1) | (y != data.y)
    given = GivenRows((x, y)) if own_loop else None
    return RowEdit(changed, replace(data, x=x, y=y, given=given))


def _text(data: Data) -> Tensor:
    """Return the text ``(N + T,)`` of which rows are the windows, each with the token after it."""
    x = data.x if isinstance(data, TensorData) else None
    windows = (
        isinstance(x, Tensor)
        and x.ndim == 2
        and not x.is_floating_point()
        and data.y.ndim == 1
        and torch.equal(x[1:, :-1], x[:-1, 1:])
        and torch.equal(x[1:, -1], data.y[:-1].to(x.dtype))
    )
    if not windows:
        raise UnsupportedError(
            "features: a phrase is replaced in a text; training rows must be its windows of token"
            " numbers (N, T), one after another, with the token after each as target"
        )
    assert isinstance(x, Tensor)
    return torch.cat([x[0], data.y.to(x.dtype)])


def _given_inputs(data: TensorData, x: Inputs) -> GivenRows:
    """Return the rows as the user gave them with other inputs."""
    source = data.as_given().take()
    if not (isinstance(source, tuple | list) and len(source) == 2) or not isinstance(x, Tensor):
        raise UnsupportedError(
            "features: a training loop of your own gets the rows as you gave them, and only a pair"
            " (x, y) of arrays or tensors can have inputs replaced; give one"
        )
    return GivenRows((x if isinstance(source[0], Tensor) else x.numpy(), source[1]))


def _replacement(request: Features, data: TensorData) -> Callable[[Inputs], Inputs]:
    """Return the function that replaces a feature in any rows; means are the training rows'."""
    if request.tokens:
        return _tokens(request, data)
    if request.region is not None:
        return _region(request, data)
    wanted = _columns(request, data)
    parts = as_named_tensors(data.x)
    values = {name: _value(request, parts[name]) for name in wanted}

    def replaced(x: Inputs) -> Inputs:
        found = dict(as_named_tensors(x))
        for name, at in wanted.items():
            t, value = found[name].clone(), values[name].to(found[name].dtype)
            if at is None:
                t[:] = value
            else:
                t[:, at] = value[at]
            found[name] = t
        return found["x"] if isinstance(x, Tensor) else found

    return replaced


def _value(request: Features, t: Tensor) -> Tensor:
    """Return what takes the place of a row's values: a tensor of a row's shape."""
    if isinstance(request.value, str):
        return t.double().mean(0)
    return torch.full(t.shape[1:], request.value, dtype=torch.float64)


def _columns(request: Features, data: TensorData) -> Mapping[str, list[int] | None]:
    """Return the columns of each input tensor; None for the whole of one."""
    twice = [f for f, times in Counter(request.features).items() if times > 1]
    if twice:
        raise InputError(f"features: {_said(twice[0])} is named twice; name each once")
    found: dict[str, list[int] | None] = {}
    parts = as_named_tensors(data.x)
    for feature in request.features:
        name, at = _column(feature, data, parts)
        known = found.setdefault(name, [])
        if at is None:
            found[name] = None
        elif known is not None:
            known.append(at)
    return found


def _column(feature: Key, data: TensorData, parts: Mapping[str, Tensor]) -> tuple[str, int | None]:
    if isinstance(feature, str):
        if data.columns is not None and feature in data.columns:
            return "x", data.columns.index(feature)
        if not isinstance(data.x, Tensor) and feature in parts:
            return feature, None
        have = data.columns or (() if isinstance(data.x, Tensor) else tuple(parts))
        shown = ", ".join(one_line(str(c), 40) for c in have[:12])
        more = f", … ({len(have)} in all)" if len(have) > 12 else ""
        raise InputError(
            f"features: no column {_said(feature)}; "
            + (f"there are: {shown}{more}" if have else "columns have no names: give positions")
        )
    if not isinstance(data.x, Tensor):
        raise InputError(
            f"features: inputs are named; name one of {', '.join(parts)}, got {feature}"
        )
    if data.x.ndim != 2:
        raise InputError(
            f"features: columns need inputs (N, columns), got {tuple(data.x.shape)}; name a region"
            " of images or tokens"
        )
    width = data.x.shape[1]
    if not 0 <= feature < width:
        raise InputError(
            f"features: column {feature} is out of range; there are columns 0 to {width - 1}"
        )
    return "x", feature


def _tokens(request: Features, data: TensorData) -> Callable[[Inputs], Inputs]:
    whole = {n: t for n, t in as_named_tensors(data.x).items() if not t.is_floating_point()}
    if not whole:
        raise InputError("features: tokens need integer inputs; name columns or a region")
    if not (isinstance(request.value, float) and request.value.is_integer()):
        raise InputError(f"features: a token is a whole number, got value {request.value}")
    wanted = torch.tensor(request.tokens)
    absent = [t for t in request.tokens if not any(bool((p == t).any()) for p in whole.values())]
    if absent:
        raise InputError(f"features: token {absent[0]} is in no row; name one that is")
    value = int(request.value)

    def replaced(x: Inputs) -> Inputs:
        parts = dict(as_named_tensors(x))
        for name in whole:
            t = parts[name]
            parts[name] = torch.where(torch.isin(t, wanted.to(t.dtype)), value, t).to(t.dtype)
        return parts["x"] if isinstance(x, Tensor) else parts

    return replaced


def _region(request: Features, data: TensorData) -> Callable[[Inputs], Inputs]:
    down, across = request.box()
    x = data.x
    if not isinstance(x, Tensor) or x.ndim < 3:
        raise InputError("features: a region needs images, inputs (N, ..., height, width)")
    if down.stop > x.shape[-2] or across.stop > x.shape[-1]:
        raise InputError(
            f"features: region {request.region} lies outside images of {x.shape[-2]} rows and"
            f" {x.shape[-1]} columns"
        )
    value = _value(request, x[..., down, across])

    def replaced(rows: Inputs) -> Inputs:
        assert isinstance(rows, Tensor)
        t = rows.clone()
        t[..., down, across] = value.to(t.dtype)
        return t

    return replaced


def _different(before: Inputs, after: Inputs) -> Tensor:
    """Return which rows of inputs differ, a boolean ``(N,)``."""
    pairs: list[tuple[Tensor, Tensor]] = [
        (t, as_named_tensors(after)[name]) for name, t in as_named_tensors(before).items()
    ]
    masks = [(a != b).reshape(len(a), -1).any(1) for a, b in pairs if a is not b]
    return torch.stack(masks).any(0) if masks else torch.zeros(len(pairs[0][0]), dtype=torch.bool)


def _where(rows: Tensor, after: Inputs, before: Inputs) -> Inputs:
    """Return the inputs after an edit in some rows and those before it in the others."""
    old = as_named_tensors(before)
    parts = {
        name: torch.where(rows.view(-1, *[1] * (t.ndim - 1)), t, old[name])
        for name, t in as_named_tensors(after).items()
    }
    return parts["x"] if isinstance(after, Tensor) else parts


def _said(key: Any) -> str:
    return one_line(repr(key), 60)
