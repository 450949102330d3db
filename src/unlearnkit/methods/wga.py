"""Weighted gradient ascent: tokens count by their probability."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    language_info,
)
from unlearnkit.language.unlearning_losses import wga


@register
class WeightedAscent(LanguageMethod):
    """Descend on ``-p^beta * loss`` of the forget labels and a retain loss."""

    info = language_info(
        "WGA",
        "Wang et al., ICLR 2025, arXiv:2502.19301",
        "As `grad_diff`, with an ascent that ends by itself where a label is unlikely.",
    )

    beta: Annotated[float, SearchRange(0.1, 5, log=True)] = Field(1.0, ge=0, allow_inf_nan=False)
    """How much less unlikely labels count; 0 is `grad_diff`."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the weighted ascent."""

        def term(step: ForgetStep) -> Tensor:
            s = step.rows
            return wga(s.logits, s.labels, s.mask, beta=self.beta)

        return term
