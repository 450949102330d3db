"""What the report's figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.report.schema import ClassAccuracy, MarginSample, Roc
from unlearnkit.stats.roc import auc, roc_curve

DRAWN = 400
"""Most points that a curve or a sample is drawn from."""


def margin_samples(e: Evidence) -> tuple[MarginSample, ...]:
    """Return margins of each model on forget and held-out rows; of the first oracle only."""
    return tuple(
        MarginSample(
            who=str(who), split=str(split), values=_thin(e.margins(who, split).sort().values)
        )
        for who in _present(e)
        for split in (Split.FORGET, Split.HELD_OUT)
        if split in e.views and e.views[split].labelled
    )


def roc_curves(e: Evidence) -> tuple[Roc, ...]:
    """Return the margin attack's curve against each model."""
    both = [e.views.get(s) for s in (Split.FORGET, Split.HELD_OUT)]
    if not all(view is not None and view.labelled for view in both):
        return ()
    found = []
    for who in _present(e):
        go, held = e.margins(who, Split.FORGET), e.margins(who, Split.HELD_OUT)
        curve = roc_curve(go, held)
        found.append(
            Roc(
                who=str(who),
                fpr=_thin(curve.fpr),
                tpr=_thin(curve.tpr),
                auc=auc(go, held),
                negatives=len(held),
            )
        )
    return tuple(found)


def class_lines(e: Evidence, gone: tuple[int, ...]) -> tuple[ClassAccuracy, ...]:
    """Return accuracy by class on test and forget rows; nothing where targets are no classes."""
    if not e.views[Split.FORGET].labelled:
        return ()
    if e.targets(Split.FORGET).is_floating_point() or e.targets(Split.FORGET).ndim != 1:
        return ()
    splits = [s for s in (Split.TEST, Split.TEST_FORGET) if s in e.views and e.views[s].labelled]
    labels = {int(label) for s in (*splits, Split.FORGET) for label in e.targets(s)}
    return tuple(_class_line(e, label, splits, label in gone) for label in sorted(labels))


def _class_line(e: Evidence, label: int, splits: Sequence[Split], forgotten: bool) -> ClassAccuracy:
    def right(who: ModelRole, where: Sequence[Split]) -> float | None:
        if not e.has(who):
            return None
        models = range(e.oracles) if who is ModelRole.ORACLE else (0,)
        rows = [e.errors(who, s, k)[e.targets(s) == label] for s in where for k in models]
        errors = torch.cat(rows) if rows else torch.empty(0)
        return 1.0 - errors.mean().item() if len(errors) else None

    def count(where: Sequence[Split]) -> int:
        return sum(int((e.targets(s) == label).sum()) for s in where)

    forget = [Split.FORGET]
    return ClassAccuracy(
        label=label,
        forgotten=forgotten,
        examples=count(splits),
        original=right(ModelRole.ORIGINAL, splits),
        unlearned=right(ModelRole.UNLEARNED, splits),
        oracle=right(ModelRole.ORACLE, splits),
        forget_examples=count(forget),
        forget_original=right(ModelRole.ORIGINAL, forget),
        forget_unlearned=right(ModelRole.UNLEARNED, forget),
        forget_oracle=right(ModelRole.ORACLE, forget),
    )


def _present(e: Evidence) -> Iterator[ModelRole]:
    return (w for w in (ModelRole.UNLEARNED, ModelRole.ORIGINAL, ModelRole.ORACLE) if e.has(w))


def _thin(values: Tensor) -> tuple[float, ...]:
    if len(values) > DRAWN:
        values = values[torch.linspace(0, len(values) - 1, DRAWN).round().long()]
    return tuple(round(v, 6) for v in values.tolist())
