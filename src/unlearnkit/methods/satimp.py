"""SatImp: ascent weighted by saturation and importance of tokens."""

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
from unlearnkit.language.unlearning_losses import satimp


@register
class SaturationImportance(LanguageMethod):
    """Descend on ``-p^saturation (1 - p)^importance * loss`` and a retain loss."""

    info = language_info(
        "SatImp",
        "Yang et al., ICML 2025, arXiv:2505.11953",
        "As `wga`, where labels that the model is sure of should count less as well.",
        presets={"paper": {"forget_weight": 0.1}},
    )

    saturation: Annotated[float, SearchRange(0.5, 8, log=True)] = Field(
        5.0, ge=0, allow_inf_nan=False
    )
    """Power of the label's probability (paper: beta1)."""

    importance: Annotated[float, SearchRange(0.1, 4, log=True)] = Field(
        1.0, ge=0, allow_inf_nan=False
    )
    """Power of one minus the label's probability (paper: beta2)."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the weighted ascent."""

        def term(step: ForgetStep) -> Tensor:
            s = step.rows
            return satimp(
                s.logits,
                s.labels,
                s.mask,
                saturation=self.saturation,
                importance=self.importance,
            )

        return term
