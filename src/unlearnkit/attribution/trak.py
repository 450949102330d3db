"""TRAK attribution, for each logit, with a scale that held-out models give."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.held_out_models import HeldOutShifts, held_out_quality
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.attribution.shift_quality import ShiftQuality, shift_quality
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch, Inputs, View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.bound_model import BoundModel
from unlearnkit.train.output_matching import centre_outputs

LARGEST = 2**28
"""Most entries of the projection: 1 GiB."""

AT_ONCE = 2**24
"""Most scalars of gradients that are held at once."""


class TrakAttribution(FrozenModel):
    """Gradients of logits, projected at random, as features of a regression.

    With projected gradients ``phi`` of the margin of each training row, the effect of row i on
    logit c of x is ``phi_c(x)^T (Phi^T Phi + ridge)^-1 phi_i (1 - p_i)`` (Park et al., ICML 2023,
    arXiv:2303.14186, which has it for the margin), times one scale for all.
    """

    kind: Literal["trak"] = "trak"
    """From projected gradients of this model."""

    projection: int = Field(512, ge=1)
    """Dimensions that gradients are projected to (paper: k)."""

    ridge: float = Field(0.1, gt=0, allow_inf_nan=False)
    """Added to ``Phi^T Phi``, as a share of its mean diagonal (paper: lambda, 0). On digits 0.1
    predicts with a correlation of 0.67, 0.001 with 0.46."""

    calibrated_on: int = Field(8, ge=0)
    """Models trained without random rows, and as many on all rows. The first half gives the scale,
    the second the quality. With fewer than 4 the scale is 1 and the sizes mean nothing."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the shift of each logit, calibrated.

        Args:
            subject: The model; a classification.
            read: The N rows.
            rt: Where to compute.
            cache: Where held-out models are kept.

        Returns:
            The shift of this model's outputs. A projection that is too large is an ``InputError``.

        Raises:
            UnsupportedError: If outcomes do not exclude each other: TRAK has margins of classes.
        """
        subject.check_trainable()
        task = subject.task
        rows = _Gradients(subject.model, task, rt, self.projection)
        known, weight = rows.margins(subject.train)
        if known is None:
            raise UnsupportedError(
                f"trak: serves classification, not {task.name}; use another attribution, such as"
                " ekfac"
            )
        inner = known.mT @ known
        inner.diagonal().add_(self.ridge * inner.diagonal().mean())
        solved = torch.linalg.solve(inner, (known * weight[:, None]).mT)  # (k, n)
        logits = rows.logits(read)  # (N, K, k)

        def raw(forget: Tensor) -> Tensor:
            return -centre_outputs(logits @ solved[:, forget].sum(1), task).float()

        held = held_out_quality(subject, raw, read, self.calibrated_on, rt, cache)
        scale, quality = _calibrated(held)
        note = () if scale is not None else ("trak: not calibrated, so sizes mean nothing",)
        factor = 1.0 if scale is None else scale
        return PredictedShift(
            factor * raw(subject.forget),
            quality,
            f"trak (projection {self.projection}, scale {factor:.3g})",
            rows=subject.train.key(),
            forget=subject.request_digest(),
            read=read.key(),
            model=model_digest(subject.model),
            work=held.work,
            notes=note,
        )


def _calibrated(held: HeldOutShifts) -> tuple[float | None, ShiftQuality]:
    """Return the scale from the first half of the held-out models, the quality from the second."""
    half = len(held.predictions) // 2
    if half < _FEW:
        return None, held.quality
    slope = shift_quality(held.predictions[:half], held.shifts[:half]).slope
    if not math.isfinite(slope):
        return None, held.quality
    return slope, shift_quality(slope * held.predictions[half:], held.shifts[half:])


_FEW = 2
"""Fewest models of a half."""


class _Gradients:
    """Projected gradients of margins and logits."""

    def __init__(self, model: nn.Module, task: Task, rt: Runtime, width: int) -> None:
        self.model, self.task, self.rt = model, task, rt
        self.params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        self.size = sum(p.numel() for p in self.params.values())
        if self.size * width > LARGEST:
            raise InputError(
                f"trak: a projection of {self.size:,} parameters to {width} dimensions is too large"
                f" (limit {LARGEST // self.size} dimensions); give a smaller projection, or use"
                " ekfac"
            )
        drawn = torch.randn(self.size, width, generator=Runtime().rng("trak/projection"))
        self.projection = drawn.to(rt.device) / math.sqrt(self.size)

    def margins(self, view: View) -> tuple[Tensor | None, Tensor]:
        """Return projected gradients of margins ``(n, k)``, and one minus each probability."""

        def margin(params: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
            one = _one(x, y)
            return self.task.margin(self.task.outputs(BoundModel(self.model, params), one), one)[0]

        grads, weights = [], []
        with eval_mode(self.model):
            for batch in view.batches(self._rows(), self.rt):
                with torch.no_grad():
                    out = self.task.outputs(self.model, batch)
                    if self.task.log_probs(out) is None:
                        return None, out
                    weights.append(torch.sigmoid(-self.task.margin(out, batch)))
                grads.append(self._projected(margin, batch))
        return torch.cat(grads).double(), torch.cat(weights).double().cpu()

    def logits(self, view: View) -> Tensor:
        """Return projected gradients of every output ``(N, K, k)``."""
        parts = []
        with eval_mode(self.model):
            width = self.task.outputs(self.model, next(view.batches(1, self.rt))).shape[1]
            for batch in view.batches(self._rows(), self.rt):
                each = []
                for c in range(width):

                    def logit(params: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
                        bound = BoundModel(self.model, params)
                        return self.task.outputs(bound, _one(x, y))[0, c]  # noqa: B023  # called here

                    each.append(self._projected(logit, batch))
                parts.append(torch.stack(each, 1))
        return torch.cat(parts).double()

    def _projected(self, value: object, batch: Batch) -> Tensor:
        assert callable(value)
        with sdpa_kernel(SDPBackend.MATH):
            found = vmap(grad(value), in_dims=(None, 0, 0))(self.params, batch.x, batch.y)
        flat = torch.cat([found[n].flatten(1) for n in self.params], 1)
        self.rt.cost.forward += len(batch)
        self.rt.cost.backward += len(batch)
        return (flat.float() @ self.projection).cpu()

    def _rows(self) -> int:
        return max(1, min(256, AT_ONCE // max(self.size, 1)))


def _one(x: Inputs, y: Tensor) -> Batch:
    first = x[None] if isinstance(x, Tensor) else {k: t[None] for k, t in x.items()}
    return Batch(first, y[None], torch.zeros(1, dtype=torch.long))
