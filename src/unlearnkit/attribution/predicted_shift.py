"""Predicted shift: by how much each output moves when training rows are left out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.shift_quality import ShiftQuality
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError


@dataclass(frozen=True)
class PredictedShift:
    """The shift of outputs that an attribution predicts, with its quality."""

    shift: Tensor
    """Outputs of retrained models minus those of original models, in the mean: ``(N, K)`` for the N
    rows of ``read``. Logits of exclusive classes are centred: their mean is 0."""

    quality: ShiftQuality
    source: str
    """Which attribution, in words."""

    rows: str
    """Digest of the training rows."""

    forget: str
    """Digest of which of them go."""

    read: str
    """Digest of the N rows."""

    model: str = ""
    """Digest of the model; empty where the shift holds for every model of this training."""

    work: int = 0
    """Cost of what is kept and serves other requests, as ``Cost.work``."""

    notes: tuple[str, ...] = ()

    def check(self, subject: AttributedModel, read: View) -> None:
        """Refuse a shift of another model, other training rows, another request or other rows.

        Args:
            subject: What the shift is used for.
            read: The rows whose outputs are to move.

        Raises:
            InputError: Naming what differs.
        """
        for what, mine, theirs in (
            ("training rows", self.rows, subject.train.key()),
            ("request", self.forget, subject.request_digest()),
            ("rows to read", self.read, read.key()),
            ("model", self.model, model_digest(subject.model) if self.model else ""),
        ):
            if mine != theirs:
                raise InputError(
                    f"attribution: was made for another {what}; predict the shift anew with"
                    " predict_shift"
                )
