"""Which part of a retrieval-augmented model held the forget set: its store or its weights.

Each number puts one part of the original model back into the unlearned one and measures what comes
back: the AUC of the margin between forget rows and never-seen rows.
"""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import predict
from unlearnkit.core.metric import Goal, Score, metric
from unlearnkit.retrieval.retrieval_model import RetrievalModel
from unlearnkit.stats.roc import auc

PAIR = (Split.FORGET, Split.HELD_OUT)
BOTH = (ModelRole.ORIGINAL, ModelRole.UNLEARNED)


def has_store(e: Evidence) -> bool:
    """Return whether both models have a retrieval store."""
    return e.has_models and all(isinstance(e.model(who), RetrievalModel) for who in BOTH)


measured = partial(
    metric,
    Goal.VALUE,
    low=-1.0,
    high=1.0,
    unit="AUC",
    reads=BOTH,
    splits=PAIR,
    models=True,
    tasks=("classification",),
    section=ReportSection.MEMBERSHIP,
    applies=has_store,
)


@measured()
def memory_in_store(e: Evidence) -> Score:
    """By how much the margin AUC rises when the original store is put back into the model.

    0: the store held nothing that the AUC sees, or the rows are still in it.
    """
    return _rise(e, store=ModelRole.ORIGINAL, weights=ModelRole.UNLEARNED)


@measured()
def memory_in_weights(e: Evidence) -> Score:
    """By how much the margin AUC rises when the original weights are put back into the model.

    0: the reader's weights held nothing that the AUC sees, or they were not unlearned.
    """
    return _rise(e, store=ModelRole.UNLEARNED, weights=ModelRole.ORIGINAL)


def _rise(e: Evidence, *, store: ModelRole, weights: ModelRole) -> Score:
    if not has_store(e):
        return Score(math.nan, note="a model has no retrieval store")
    reader, held = e.model(weights), e.model(store)
    assert isinstance(reader, RetrievalModel)
    assert isinstance(held, RetrievalModel)
    after = auc(*(e.margins(ModelRole.UNLEARNED, split) for split in PAIR))
    mixed = margin_auc_of(e, reader.with_store(held.store))
    return Score(mixed - after, note=f"{mixed:.2f} with the original part, {after:.2f} without")


def margin_auc_of(e: Evidence, model: nn.Module) -> float:
    """Return the AUC of the margin of a model between the forget and the never-seen rows."""
    parts = []
    for split in PAIR:
        view = e.views[split]
        out = predict(model.eval(), view, e.task, e.rt)
        parts.append(
            Evidence.from_outputs({"unlearned": {split: out}}, {split: view.y}, e.task, e.rt)
        )
    return auc(*(x.margins(ModelRole.UNLEARNED, s) for x, s in zip(parts, PAIR, strict=True)))
