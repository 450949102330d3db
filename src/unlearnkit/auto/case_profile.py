"""Profile of a case and its request, by which the decision table chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.auto.decision_table import Condition, Kind
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.method import Need
from unlearnkit.core.request import Classes, ForgetRequest, Groups, Targets
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.roc import auc
from unlearnkit.train.features import row_losses
from unlearnkit.unlearning.requirements import available_inputs

ATYPICAL = 0.75
"""Share of pairs in which a forget row must fit the original worse than a retained row, for the
forget set to be atypical. Rows drawn at random had 0.36 to 0.56 on the cases of
experiments/small_cases.py, rows with wrong labels 0.94 to 1."""

SURE = 3.0
"""Standard errors by which that share must lie above a half."""

ROWS = 500
"""Most rows of each kind that are read."""


@dataclass(frozen=True)
class CaseProfile:
    """Facts of a case and its request that the conditions of the table test."""

    task: str
    has: frozenset[Need]
    kind: Kind
    share: float | None
    """Share of the training rows in the forget set; None where these are not at hand."""

    atypicality: float | None
    """Share of pairs in which a forget row fits the original worse than a retained row."""

    layers: int
    """Weight matrices of the model: parameters of two dimensions or more."""

    batch_norm: bool = False
    """Whether the model has batch normalisation, trained or frozen."""

    def fits(self, when: Condition) -> bool:
        """Return whether a circumstance holds."""
        share = self.share
        size = (share is None and when.least == 0 and when.most == 1) or (
            share is not None and when.least <= share <= when.most
        )
        return (
            when.has <= self.has
            and not (when.lacks & self.has)
            and (not when.tasks or self.task in when.tasks)
            and (not when.kinds or self.kind in when.kinds)
            and (when.layers is None or self.layers <= when.layers)
            and when.batch_norm in {None, self.batch_norm}
            and size
        )


def profile_case(
    model: nn.Module, case: Case, request: ForgetRequest | None, parts: Partition, rt: Runtime
) -> CaseProfile:
    """Return what a case offers, and what kind of request it has; ``rt`` counts the rows read.

    Everything that the user gave may be read; no oracle is needed. Whether rows are atypical
    follows from the original: the Mann-Whitney statistic of the losses of forget against retained
    rows.
    """
    share = score = None
    if parts.forget is not None and parts.retain is not None:
        share = len(parts.forget) / (len(parts.forget) + len(parts.retain))
    kind = _named_kind(request, parts)
    if kind != "class" and parts.forget is not None and parts.retain is not None:
        score, sure = _mann_whitney(model, case, parts, rt)
        if score >= ATYPICAL and sure >= SURE:
            kind = "atypical"
    layers = sum(p.ndim > 1 for p in model.parameters())
    norm = any(isinstance(m, _BatchNorm) for m in model.modules())
    inputs = available_inputs(case, parts)
    return CaseProfile(case.task.name, inputs, kind, share, score, layers, norm)


def _named_kind(request: ForgetRequest | None, parts: Partition) -> Kind:
    if isinstance(request, Classes):
        return "class"
    if parts.forget is None or parts.retain is None:
        return "unknown"
    if parts.removed_classes:
        gone = torch.isin(
            parts.forget.y, torch.tensor(parts.removed_classes, device=parts.forget.y.device)
        )
        if float(gone.double().mean()) > 0.5:
            return "class"
    return "group" if isinstance(infer_request(request, parts), Groups | Targets) else "random"


def _mann_whitney(
    model: nn.Module, case: Case, parts: Partition, rt: Runtime
) -> tuple[float, float]:
    """Return the share of pairs, and its distance from a half in standard errors."""
    assert parts.forget is not None
    assert parts.retain is not None
    go = parts.forget.sample(ROWS, rt, "auto/forget")
    stay = parts.retain.sample(ROWS, rt, "auto/retain")
    n, m = len(go), len(stay)
    share = auc(*(row_losses(model, view, case.task, rt) for view in (go, stay)))
    return share, (share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))
