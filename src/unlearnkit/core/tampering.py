"""Tampering: training rows with a backdoor or swapped labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearnkit.core.data import Data


@dataclass(frozen=True)
class Tampering:
    """What was done to a training set: a backdoor, two classes confused.

    Goel et al., TMLR 2024, arXiv:2402.14015: of all tampered rows only some may be known, and these
    are what a request names. A model retrained without them has still learned the others.
    """

    rows: Tensor
    """Positions in the training set of all tampered rows ``(M,)``, known or not."""

    affected_rows: Data
    """Rows never trained on that the tampering acts on, with their right targets."""

    attacker_targets: Data
    """The same rows with the targets that the tampering is after."""

    unaffected_rows: Data
    """Rows never trained on that it does not act on."""

    def known_share(self, rows: Tensor) -> float:
        """Return which share of the tampered rows is among these training rows ``(K,)``."""
        return float(torch.isin(self.rows, rows).double().mean())

    def after_deletion(self, stay: Tensor) -> Tampering | None:
        """Return the same for the training set that is left when these rows ``(K,)`` stay."""
        rows = torch.isin(stay, self.rows).nonzero()[:, 0]
        return replace(self, rows=rows) if len(rows) else None
