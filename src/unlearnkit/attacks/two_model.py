"""The attacker who kept the old model: which rows lost most when the new one came?

Retraining lowers forgotten rows as well, so that it leaks here too: the aim is the oracles' value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.margin_checks import check_margins
from unlearnkit.stats.roc import AttackPerformance, apart


@dataclass(frozen=True)
class TwoModel:
    """What the fall of the margin, old model minus new, finds."""

    unlearned: tuple[AttackPerformance, ...]
    """For each unlearned model."""

    oracle: tuple[AttackPerformance, ...]
    """For each retrained model in its place: what cannot be helped."""

    falls: Tensor
    """Mean over the unlearned models of old margin minus new ``(E,)``."""

    note: str = ""
    """What is missing."""

    @property
    def auc(self) -> float:
        """Return the mean AUC of the unlearned models."""
        return _mean(self.unlearned)

    @property
    def oracle_auc(self) -> float:
        """Return the mean AUC of the retrained models; nan without any."""
        return _mean(self.oracle)

    @property
    def delta(self) -> float:
        """Return the first minus the second: what unlearning gives away beyond retraining."""
        return self.auc - self.oracle_auc

    @property
    def oracle_deviation(self) -> float:
        """Return the standard deviation of the AUC over retrained models; nan for fewer than 3."""
        if len(self.oracle) < 3:
            return math.nan
        return float(torch.tensor([f.auc for f in self.oracle], dtype=torch.float64).std())


def two_model(original: Tensor, unlearned: Tensor, oracle: Tensor, members: Tensor) -> TwoModel:
    """Return what an attacker finds who has the model before and after (Chen et al., CCS 2021).

    ``s = phi_old - phi_new``, larger for rows that were taken out (arXiv:2005.02205, the difference
    of outputs in its simplest form).

    Args:
        original: Margins before: of one model ``(1, E)``, or of the one that each unlearned model
            came from ``(N, E)``.
        unlearned: Margins after ``(N, E)``.
        oracle: Margins of retrained models ``(M, E)``; M may be 0.
        members: Rows that had to go ``(E,)``, boolean; the others are held-out or retained rows.

    Returns:
        The findings.

    Raises:
        InputError: If shapes do not fit.
    """
    check_margins("two_model", original=original, unlearned=unlearned, oracle=oracle)
    if len(original) not in {1, len(unlearned)} or not len(unlearned):
        raise InputError(
            "two_model: one original, or one for each unlearned model, is needed, got"
            f" {len(original)} for {len(unlearned)}"
        )
    if members.shape != original.shape[1:] or members.dtype is not torch.bool:
        raise InputError(
            f"two_model: members must be boolean ({original.shape[1]},), got {members.dtype}"
            f" {tuple(members.shape)}"
        )
    after = (unlearned, oracle)
    found = [
        tuple(_found(original[i % len(original)] - new, members) for i, new in enumerate(side))
        for side in after
    ]
    falls = original.double().mean(0) - unlearned.double().mean(0)
    notes = ["no oracle: the value that cannot be helped is unknown"] if not len(oracle) else []
    notes += [found[0][0].note] if found[0][0].note else []
    return TwoModel(found[0], found[1], falls, "; ".join(notes))


def _found(falls: Tensor, members: Tensor) -> AttackPerformance:
    return apart(falls[members], falls[~members])


def _mean(found: tuple[AttackPerformance, ...]) -> float:
    return sum(f.auc for f in found) / len(found) if found else math.nan
