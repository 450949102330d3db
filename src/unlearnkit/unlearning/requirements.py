"""Requirements of methods, compared with the inputs of a case."""

from __future__ import annotations

import torch

from unlearnkit.catalog import methods
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import first_rows
from unlearnkit.core.method import Method, Need
from unlearnkit.core.runtime import Runtime


def applicable_methods(case: Case, split: Partition) -> list[str]:
    """Return the ids of the methods that serve a case's task with the inputs that it gives."""
    return [
        i
        for i, m in methods().items()
        if case.task.name in m.info.tasks and not _lacking(m, case, split)
    ]


LEFT_BY_TRAINING = frozenset({Need.HISTORY, Need.CHECKPOINTS})
"""Inputs that a training of the original leaves."""


def check_needs(how: Method, case: Case, split: Partition, *, trained: bool = True) -> None:
    """Refuse a method that cannot serve a case.

    Args:
        how: The method.
        case: The case.
        split: What the request makes of its rows.
        trained: Whether the original is there; its training may leave inputs that a method needs.

    Raises:
        UnsupportedError: If the method is not for the task, or needs what the case does not give.
    """
    if isinstance(how, Auto):
        return
    info = how.info
    if case.task.name not in info.tasks:
        fits = [i for i, m in methods().items() if case.task.name in m.info.tasks]
        raise UnsupportedError(
            f"{how.id} serves {', '.join(sorted(info.tasks))}, not {case.task.name}; these do:"
            f" {', '.join(fits) or 'none'}"
        )
    lacking = _lacking(
        type(how),
        case,
        split,
        later=LEFT_BY_TRAINING if case.train_model is not None and not trained else frozenset(),
    )
    if lacking:
        raise UnsupportedError(
            f"{how.id} needs {' and '.join(lacking)}, which the case does not give; with what there"
            f" is, these work: {', '.join(applicable_methods(case, split)) or 'none'}"
        )


def _lacking(
    how: type[Method], case: Case, split: Partition, later: frozenset[Need] = frozenset()
) -> list[str]:
    have = available_inputs(case, split, how.info.reads) | later
    lacking: list[str] = sorted(how.info.needs - have)
    any_of = how.info.needs_one_of
    if any_of and not any_of & have:
        lacking.append(" or ".join(sorted(any_of)))
    return lacking


def available_inputs(
    case: Case, split: Partition, wanted: frozenset[Need] = frozenset(Need)
) -> frozenset[Need]:
    """Return which of the inputs a case gives; labels only if all rows to be read have them."""
    reads = {Need.FORGET: split.forget, Need.RETAIN: split.retain}
    have = {
        Need.LABELS: lambda: all(v is None or v.labelled for n, v in reads.items() if n in wanted),
        Need.FORGET: lambda: split.forget is not None,
        Need.RETAIN: lambda: split.retain is not None,
        Need.VALIDATION: lambda: case.validation is not None,
        Need.FRESH: lambda: case.fresh is not None,
        Need.CLASSES: lambda: _whole_classes(split),
        Need.MOMENTS: lambda: case.input_moments is not None,
        Need.CORRECTED: lambda: split.corrections is not None,
        Need.CLIENTS: lambda: all(
            v is None or v.data.group is not None for n, v in reads.items() if n in wanted
        ),
        Need.HISTORY: lambda: bool(getattr(case.train_model, "history", None)),
        Need.CHECKPOINTS: lambda: getattr(case.train_model, "checkpoints", None) is not None,
        Need.SHAPE: lambda: input_shape(case, split) is not None,
    }
    return frozenset(n for n in wanted if have[n]())


def _whole_classes(split: Partition) -> bool:
    if not split.removed_classes or split.forget is None:
        return bool(split.removed_classes)
    return set(split.forget.y.tolist()) <= set(split.removed_classes)


def input_shape(case: Case, split: Partition) -> tuple[int, ...] | None:
    """Return the shape of one row's input; None where that is no single tensor."""
    view = split.retain if split.forget is None else split.forget
    if view is None:
        return case.input_shape
    x = first_rows(view, Runtime(), 1).x
    return tuple(x.shape[1:]) if isinstance(x, torch.Tensor) else None
