"""Influence attribution: one damped Newton step, with the curvature by EK-FAC."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.held_out_models import held_out_quality
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.linalg.directional_derivative import directional_derivative
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.linalg.loss_gradient import summed_gradient
from unlearnkit.train.output_matching import centre_outputs


class EkFacAttribution(FrozenModel):
    """The influence function of the forget set, with the Gauss-Newton matrix by EK-FAC."""

    kind: Literal["ekfac"] = "ekfac"
    """From the curvature of this model's own loss."""

    damping: Annotated[float, SearchRange(1e-3, 3e-2, log=True)] = Field(
        4e-3, ge=0, allow_inf_nan=False
    )
    """Added to the curvature of the mean loss, besides the recipe's weight decay. On digits
    predictions have the right size at 0.004; 0 is refused where the curvature is singular."""

    checked_on: int = Field(0, ge=0)
    """Models trained without random rows, as many rows as the request has, to measure the quality;
    and as many on all rows. 0 trains none, and the quality stays unknown."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the derivative of the outputs along the step that leaves the forget set out.

        Args:
            subject: The model.
            read: The N rows.
            rt: Where to compute.
            cache: Where held-out models are kept.

        Returns:
            The shift of this model's outputs. A damping of 0 and a singular curvature are an
            ``InputError``.
        """
        subject.check_trainable()
        factors = EkFac.measure(subject.model, subject.train, subject.task, rt)

        def shift(forget: Tensor) -> Tensor:
            step = leave_out_step(subject, forget, factors, self.damping, rt)
            moved = directional_derivative(subject.model, read, subject.task, rt, step)
            return centre_outputs(moved, subject.task)

        held = held_out_quality(subject, shift, read, self.checked_on, rt, cache)
        return PredictedShift(
            shift(subject.forget),
            held.quality,
            f"ekfac (damping {self.damping:g})",
            rows=subject.train.key(),
            forget=subject.request_digest(),
            read=read.key(),
            model=model_digest(subject.model),
            work=held.work,
            notes=fallback_notes(factors),
        )


def leave_out_step(
    subject: AttributedModel, forget: Tensor, factors: EkFac, damping: float, rt: Runtime
) -> dict[str, Tensor]:
    """Return the Newton step of the weights that leaves some training rows out.

    At a minimum of the mean loss of n rows, the mean loss of the n - k that stay has the gradient
    ``-1/(n - k) sum of the k rows' gradients``; the step is ``(G + damping + weight decay)^-1``
    times the opposite (Koh and Liang, ICML 2017, arXiv:1703.04730; Grosse et al., 2023,
    arXiv:2308.03296).

    Args:
        subject: The model and its rows.
        forget: Which rows are left out ``(n,)``.
        factors: Its curvature; of another model or other rows it is refused.
        damping: Added to the curvature.
        rt: Where to compute.

    Returns:
        One tensor per parameter, by name. A damping of 0 and a singular curvature are an
        ``InputError``.
    """
    factors.check(subject.model, subject.train)
    go = subject.train.pick(forget)
    gradient = summed_gradient(subject.model, go, subject.task, rt)
    decay = subject.training.weight_decay if isinstance(subject.training, Recipe) else 0.0
    stay = len(forget) - len(go)
    known = {n: g / stay for n, g in gradient.items() if n in factors.blocks}
    return factors.solve(known, damping + decay)


def fallback_notes(factors: EkFac) -> tuple[str, ...]:
    """Return a note that names the parameters without Kronecker factors; none if all have them."""
    if not factors.fallback:
        return ()
    shown = ", ".join(factors.fallback[:_SHOWN])
    more = f" and {len(factors.fallback) - _SHOWN} more" if len(factors.fallback) > _SHOWN else ""
    return (
        f"no Kronecker factors for {shown}{more}: their curvature is the diagonal alone, which"
        " ignores how their entries act together",
    )


_SHOWN = 5
"""Most parameters that a note names."""
