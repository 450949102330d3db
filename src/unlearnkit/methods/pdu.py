"""PDU: flat logits on the forget set, under a bound on the retain loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    TokenModel,
    Weighing,
    language_info,
    language_task,
)
from unlearnkit.language.unlearning_losses import logit_flatness


@register
class PrimalDual(LanguageMethod):
    """Flatten the forget logits; a dual variable weighs the retain loss above its bound."""

    info = language_info(
        "PDU",
        "Entesari et al., 2025, arXiv:2506.05314",
        "Where the retain loss has a bound that must hold: its weight grows until it does.",
        differs=("the bound is the original's own retain loss plus `slack`",),
    )

    slack: Annotated[float, SearchRange(0, 1)] = Field(0.1, ge=0, allow_inf_nan=False)
    """Rise of the retain loss that is allowed, in nats a token (paper: epsilon less that loss)."""

    dual_step: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(
        1.0, gt=0, allow_inf_nan=False
    )
    """Step of the dual variable for each nat above the bound."""

    warmup: float = Field(0.5, ge=0, le=1)
    """Share of the run, from its start, in which the weight is `retain_weight` and does not move
    (published: 5 of 10 epochs)."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return how far the forget logits are from flat."""

        def term(step: ForgetStep) -> Tensor:
            return logit_flatness(step.rows.logits, step.rows.mask)

        return term

    def weighing(self, p: Problem, rt: Runtime) -> Weighing:
        """Return the Lagrangian; the dual variable takes a step of ascent at each batch."""
        bound = self._original_loss(p, rt) + self.slack
        weight = self.retain_weight

        def weigh(forget: Tensor, retain: Tensor, progress: float) -> Tensor:
            nonlocal weight
            total = self.forget_weight * forget + weight * (retain - bound)
            if progress >= self.warmup:
                weight = max(0.0, weight + self.dual_step * float(retain.detach() - bound))
            return total

        return weigh

    def _original_loss(self, p: Problem, rt: Runtime) -> float:
        """Return the original's mean loss of the labels of some retained rows."""
        some = p.retain.sample(self.guard.sample, rt, "pdu/bound")
        see = TokenModel(p.original, language_task(p), some)
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in some.batches(p.recipe.batch_size, rt):
                seen = see(batch)
                labels = int(seen.mask.sum())
                total, count = total + float(seen.nll("token")) * labels, count + labels
        return total / count
