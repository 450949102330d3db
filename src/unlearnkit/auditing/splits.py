"""Which rows an audit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Split
from unlearnkit.core.runtime import Runtime

RETAIN_ROWS = 10_000
"""Most retained rows that are looked at; a sample is drawn beyond."""


@dataclass(frozen=True)
class Splits:
    """The rows of each split that exists, and what a reader should know about them."""

    views: dict[Split, View]
    warnings: tuple[str, ...]


def choose(case: Case, parts: Partition, rt: Runtime, *, even: bool = False) -> Splits:
    """Return the rows of each split.

    For a class request the test rows are split into forgotten and kept classes. Held-out rows get
    the target mix of the forget rows, where targets are classes.

    Args:
        case: Gives test and held-out rows.
        parts: Forget and retain rows.
        rt: Draws samples.
        even: Whether to take no more held-out rows than there are forget rows.

    Returns:
        The splits.
    """
    views: dict[Split, View] = {}
    warnings: list[str] = []
    if parts.forget is not None:
        views[Split.FORGET] = parts.forget
    if parts.retain is not None:
        views[Split.RETAIN] = parts.retain.sample(RETAIN_ROWS, rt, "audit/retain")
        if len(parts.retain) > RETAIN_ROWS:
            warnings.append(f"retained rows are a sample of {RETAIN_ROWS} of {len(parts.retain)}")
    if case.test is not None:
        whole = View.all(case.test)
        known = bool(parts.gone) and whole.labelled
        forgotten = torch.isin(whole.y, torch.tensor(parts.gone)) if known else None
        if forgotten is None or not bool(forgotten.any()):
            views[Split.TEST] = whole
        else:
            views[Split.TEST] = whole.pick(~forgotten)
            views[Split.TEST_FORGET] = whole.pick(forgotten)
    blank = [str(s) for s, view in views.items() if not view.labelled]
    if blank:
        warnings.append(
            f"no targets on {', '.join(blank)} rows: accuracies, losses and attacks that need them"
            " are undefined there"
        )
    held, told = _held_out(case, parts, rt, even=even)
    if held is not None:
        views[Split.HELD_OUT] = held
    return Splits(views, (*warnings, *told))


def _held_out(
    case: Case, parts: Partition, rt: Runtime, *, even: bool
) -> tuple[View | None, list[str]]:
    source = case.held_out or case.test
    if source is None or parts.forget is None:
        return None, ["no held-out rows: attacks that compare with never-seen rows cannot run"]
    told = []
    if case.held_out is None:
        told.append("held-out rows are the test rows; right only if nothing was tuned on them")
    held = View.all(source)
    some = held.sample(len(parts.forget), rt, "audit/held out") if even else held
    if not (parts.forget.labelled and held.labelled):
        told.append("rows without targets: held-out rows are not matched to the forget rows")
        return some, told
    if parts.forget.y.is_floating_point() or parts.forget.y.ndim != 1:
        told.append("targets are no classes: held-out rows are not matched to the forget rows")
        return some, told
    rows, absent = _matched(parts.forget.y, held.y, rt, even=even)
    if absent:
        told.append(f"no held-out row of class {', '.join(map(str, absent))}: not matched there")
    return (held.pick(rows) if len(rows) else None), told


def _matched(wanted: Tensor, there: Tensor, rt: Runtime, *, even: bool) -> tuple[Tensor, list[int]]:
    """Draw as many rows as the scarcest class allows, in the wanted mix; name absent classes."""
    classes, counts = torch.unique(wanted, return_counts=True)
    have = torch.stack([(there == c).sum() for c in classes])
    absent = classes[have == 0].tolist()
    classes, counts, have = classes[have > 0], counts[have > 0], have[have > 0]
    if not len(classes):
        return torch.empty(0, dtype=torch.long), absent
    scale = float((have / counts).min())
    scale = min(scale, 1.0) if even else scale
    picked = []
    for c, count in zip(classes.tolist(), counts.tolist(), strict=True):
        rows = (there == c).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=rt.rng(f"audit/held out/{c}"))
        picked.append(rows[order[: max(1, round(scale * count))]])
    return torch.cat(picked).sort().values, absent
