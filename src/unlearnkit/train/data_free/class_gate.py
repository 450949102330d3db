"""Class gate: keeps forgotten classes out of a distillation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError

Kind = Literal["logit", "sample", "both"]

EDGES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)
"""Of the histogram that is shown when no input passes."""


def passes_gate(out: Tensor, removed: tuple[int, ...], threshold: float) -> Tensor:
    """Return which rows pass the sample gate ``(B,)``: no forgotten class above the threshold.

    The band-pass filter of Chundawat et al., IEEE TIFS 2023, arXiv:2201.05629, on the teacher's
    logits ``(B, K)``.
    """
    return (out.softmax(-1)[:, list(removed)] <= threshold).all(-1)


def suppress_classes(out: Tensor, removed: tuple[int, ...], margin: float) -> Tensor:
    """Return logits ``(B, K)`` with those of some classes at the row's smallest less a margin."""
    hit = torch.zeros(out.shape[-1], dtype=torch.bool, device=out.device)
    hit[list(removed)] = True
    return torch.where(hit, out.amin(-1, keepdim=True) - margin, out)


class ClassGate:
    """A gate between teacher and student, with counts of what passed."""

    def __init__(
        self,
        kind: Kind,
        removed: tuple[int, ...],
        *,
        threshold: float,
        margin: float,
        patience: int,
        who: str,
    ) -> None:
        """Set the gate up; ``patience`` counts batches in a row of which nothing passes."""
        self.kind, self.removed, self.who = kind, removed, who
        self.threshold, self.margin, self.patience = threshold, margin, patience
        self.classes = torch.zeros(0)
        self._empty = 0
        self._rows = [0, 0]
        self._passed: list[Tensor | float] = [0.0, 0.0]
        self._held = torch.zeros(len(EDGES) - 1)

    def keep(self, out: Tensor) -> Tensor:
        """Return which rows pass ``(B,)``, given the teacher's logits ``(B, K)``."""
        if self.kind == "logit":
            return torch.ones(len(out), dtype=torch.bool, device=out.device)
        return passes_gate(out.detach(), self.removed, self.threshold)

    def goal(self, out: Tensor) -> Tensor:
        """Return what the student should answer instead of the teacher's logits ``(B, K)``."""
        return out if self.kind == "sample" else suppress_classes(out, self.removed, self.margin)

    def count(self, out: Tensor, keep: Tensor) -> None:
        """Count a batch: how many rows pass, and which classes the teacher predicts."""
        seen = torch.bincount(out.argmax(-1), minlength=out.shape[-1])
        self.classes = seen if not len(self.classes) else self.classes + seen
        for k in (0, 1):
            self._rows[k] += len(out)
            self._passed[k] = self._passed[k] + keep.sum()

    def rate(self) -> float:
        """Return the share of rows that passed since this was last called."""
        share = float(self._passed[1]) / max(self._rows[1], 1)
        self._rows[1], self._passed[1] = 0, 0.0
        return share

    def whole_rate(self) -> float:
        """Return the share of all rows that passed."""
        return float(self._passed[0]) / max(self._rows[0], 1)

    def let_some_pass(self) -> None:
        """Note that a batch could be used."""
        self._empty = 0

    def stuck(self, out: Tensor, *, last: bool) -> bool:
        """Return whether patience is at its end, after counting a batch that could not be used.

        ``last`` says that the inputs' source cannot be drawn anew any more.

        Raises:
            InputError: If nothing ever passed, or nothing can be done any more.
        """
        highest = out.softmax(-1)[:, list(self.removed)].amax(-1).float().cpu()
        self._held += torch.histogram(highest, torch.tensor(EDGES)).hist
        self._empty += 1
        if self._empty < self.patience:
            return False
        if last or not float(self._passed[0]):
            counts = ", ".join(
                f"{EDGES[k]:g} to {EDGES[k + 1]:g}: {int(n)}" for k, n in enumerate(self._held)
            )
            raise InputError(
                f"{self.who}: the gate held back {self._empty} batches in a row at threshold"
                f" {self.threshold:g}; inputs by the highest probability of a forgotten class:"
                f" {counts}; raise the threshold, or set gate to logit"
            )
        self._empty = 0
        return True
