"""Which rows an audit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.auditing.request_summary import row_bytes
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import TensorData, View, as_named_tensors, index_rows
from unlearnkit.core.evidence import Split
from unlearnkit.core.request import ForgetRequest, Targets
from unlearnkit.core.row_selection import in_range
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import predicts_numbers
from unlearnkit.stats.matched_auc import quantile_bins

RETAIN_ROWS = 10_000
"""Most retained rows that are looked at; a sample is drawn beyond."""


@dataclass(frozen=True)
class Splits:
    """The rows of each split that exists, and what a reader should know about them."""

    views: dict[Split, View]
    warnings: tuple[str, ...]


def choose(
    case: Case,
    parts: Partition,
    rt: Runtime,
    request: ForgetRequest | None = None,
    *,
    retain_rows: int = RETAIN_ROWS,
) -> Splits:
    """Return the rows of each split.

    For a request of classes or of a range of targets the test rows are split into what was
    forgotten and what was kept. Held-out rows get the target mix of the forget rows: class by
    class, or by quantile bins of real targets.

    Args:
        case: Gives test and held-out rows.
        parts: Forget and retain rows.
        rt: Draws samples.
        request: What must be forgotten; a range of targets holds for never-seen rows too.
        retain_rows: Most retained rows that are looked at.

    Returns:
        The splits.
    """
    views: dict[Split, View] = {}
    warnings: list[str] = []
    if parts.forget is not None:
        views[Split.FORGET] = parts.forget
    if parts.retain is not None:
        views[Split.RETAIN] = parts.retain.sample(retain_rows, rt, "audit/retain")
        if len(parts.retain) > retain_rows:
            warnings.append(f"retained rows are a sample of {retain_rows} of {len(parts.retain)}")
    if case.test is not None:
        whole = View.all(parts.as_used(case.test))
        forgotten = _forgotten(whole, parts, request)
        if forgotten is None or not bool(forgotten.any()):
            views[Split.TEST] = whole
        else:
            views[Split.TEST] = whole.pick(~forgotten)
            views[Split.TEST_FORGET] = whole.pick(forgotten)
            if not len(views[Split.TEST]):
                warnings.append(
                    "every test row is of the forgotten kind: what unlearning does to others is"
                    " seen on training rows alone"
                )
    if case.manipulated is not None:
        views[Split.AFFECTED] = View.all(case.manipulated.affected_rows)
        views[Split.AIMED] = View.all(case.manipulated.attacker_targets)
        views[Split.ELSEWHERE] = View.all(case.manipulated.unaffected_rows)
    views |= _corrected(parts, rt)
    warnings += _without_targets(views)
    held, told = _held_out(case, parts, rt, request)
    if held is not None:
        views[Split.HELD_OUT] = held
    views |= _candidates(case, rt)
    return Splits(views, (*warnings, *told))


def _without_targets(views: dict[Split, View]) -> list[str]:
    """Return a warning that names the splits without targets; none where all have them."""
    blank = [str(s) for s, view in views.items() if not view.labelled]
    if not blank:
        return []
    return [
        f"no targets on {', '.join(blank)} rows: accuracies, losses and attacks that need them"
        " are undefined there"
    ]


def _candidates(case: Case, rt: Runtime) -> dict[Split, View]:
    """Return what a model reads to rank the secret of a planted canary."""
    x = case.train.x if isinstance(case.train, TensorData) else None
    if case.canary is not None and case.task.name == "causal_lm":
        rows = case.canary.sequences(rt, plain=isinstance(x, Tensor))
        return {Split.CANDIDATES: View.all(rows)}
    if case.canary is None or not isinstance(x, Tensor):
        return {}
    return {Split.CANDIDATES: View.all(case.canary.candidates(x.shape[1], rt))}


def _corrected(parts: Partition, rt: Runtime) -> dict[Split, View]:
    """Return the rows that a correction changed, and these with each other's old values."""
    if parts.forget is None or parts.corrections is None:
        return {}
    shuffled = _shuffled(parts.forget, parts.corrections, rt)
    more = {} if shuffled is None else {Split.SHUFFLED: shuffled}
    return {Split.CORRECTED: parts.corrections} | more


def _shuffled(forget: View, corrected: View, rt: Runtime) -> View | None:
    """Return the forget rows with each other's values where a correction changed inputs.

    None where it changed none, or where rows differ in which numbers it changed, as with tokens.
    """
    old, new = forget.data, corrected.data
    if not (isinstance(old, TensorData) and isinstance(new, TensorData)) or old.x is new.x:
        return None
    order = torch.randperm(len(forget), generator=rt.rng("audit/shuffled"))
    before = as_named_tensors(index_rows(old.x, forget.rows))
    after = as_named_tensors(index_rows(new.x, corrected.rows))
    if not all(t.is_floating_point() for n, t in before.items() if not torch.equal(t, after[n])):
        return None
    parted = {n: torch.where((t != after[n]).any(0), t[order], t) for n, t in before.items()}
    x = parted["x"] if isinstance(old.x, Tensor) else parted
    return View.all(TensorData(x, old.y[forget.rows]))


def _forgotten(view: View, parts: Partition, request: ForgetRequest | None) -> Tensor | None:
    """Return which rows are of forgotten classes or in the forgotten range; None where no kind."""
    if not view.labelled:
        return None
    if isinstance(request, Targets):
        return in_range(request, view.y)
    return (
        torch.isin(view.y, torch.tensor(parts.removed_classes)) if parts.removed_classes else None
    )


def _held_out(
    case: Case, parts: Partition, rt: Runtime, request: ForgetRequest | None
) -> tuple[View | None, list[str]]:
    source = case.held_out or case.test
    if source is None or parts.forget is None:
        return None, ["no held-out rows: attacks that compare with never-seen rows cannot run"]
    told = []
    if case.held_out is None:
        told.append(
            "the never-seen rows of the attacks are the test rows: valid only if nothing was tuned"
            " on them"
        )
    held, twice = _apart(View.all(source), parts.forget)
    if twice:
        told.append(
            f"{twice} held-out rows are forget rows as well, bit for bit: left out of attacks;"
            " leave rows that were trained on out of test and held-out rows"
        )
    if not (parts.forget.labelled and held.labelled):
        told.append("rows without targets: held-out rows are not matched to the forget rows")
        return held, told
    if predicts_numbers(case.task, held.y):
        return _like(held, parts.forget.y, request, rt, told)
    if parts.forget.y.is_floating_point() or parts.forget.y.ndim != 1:
        told.append("targets are no classes: held-out rows are not matched to the forget rows")
        return held, told
    rows, absent = _matched(parts.forget.y, held.y, rt)
    if absent:
        told.append(f"no held-out row of class {', '.join(map(str, absent))}: not matched there")
    return (held.pick(rows) if len(rows) else None), told


def _apart(held: View, forget: View) -> tuple[View, int]:
    """Return the held-out rows that are no forget row, and how many others there were."""
    seen = set(row_bytes(forget))
    again = [i for i, row in enumerate(row_bytes(held)) if row in seen] if seen else []
    if not again:
        return held, 0
    return held.pick(~torch.isin(torch.arange(len(held)), torch.tensor(again))), len(again)


def _like(
    held: View, wanted: Tensor, request: ForgetRequest | None, rt: Runtime, told: list[str]
) -> tuple[View | None, list[str]]:
    """Return held-out rows in the mix of the wanted real targets, by quantile bins of these."""
    if isinstance(request, Targets):
        held = held.pick(in_range(request, held.y))
    bins, there, count = quantile_bins(wanted, held.y)
    rows, _ = _matched(bins, there, rt)
    if not len(rows):
        told.append(
            "no held-out row has a target like the forget rows': attacks that compare with"
            " never-seen rows cannot run"
        )
        return None, told
    if count == 1 and bool((wanted != wanted[:1]).any()):
        told.append(
            f"only {len(rows)} held-out rows have targets like the forget rows': matched by the"
            " range of these alone"
        )
    return held.pick(rows), told


def _matched(wanted: Tensor, there: Tensor, rt: Runtime) -> tuple[Tensor, list[int]]:
    """Draw as many rows as the scarcest class allows, in the wanted mix; name absent classes."""
    classes, counts = torch.unique(wanted, return_counts=True)
    have = torch.stack([(there == c).sum() for c in classes])
    absent = classes[have == 0].tolist()
    classes, counts, have = classes[have > 0], counts[have > 0], have[have > 0]
    if not len(classes):
        return torch.empty(0, dtype=torch.long), absent
    scale = float((have / counts).min())
    picked = []
    for c, count in zip(classes.tolist(), counts.tolist(), strict=True):
        rows = (there == c).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=rt.rng(f"audit/held out/{c}"))
        picked.append(rows[order[: max(1, round(scale * count))]])
    return torch.cat(picked).sort().values, absent
