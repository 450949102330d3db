"""SimNPO: negative preference by mean likelihood, without a reference."""

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
from unlearnkit.language.unlearning_losses import simnpo


@register
class SimNPO(LanguageMethod):
    """Descend on SimNPO's loss of the forget rows and a retain loss."""

    info = language_info(
        "SimNPO",
        "Fan et al., 2024, arXiv:2410.07163",
        "As `npo`, where forget rows differ much in length or the original is not at hand.",
        presets={
            "paper": {"beta": 4.5, "delta": 0.0, "forget_weight": 0.125},
            "reference": {"beta": 2.5, "delta": 0.0, "forget_weight": 0.1375},
        },
    )

    beta: Annotated[float, SearchRange(0.5, 8, log=True)] = Field(4.5, gt=0, allow_inf_nan=False)
    """How sharply a row stops to count once its mean loss is above ``delta``."""

    delta: Annotated[float, SearchRange(0, 4)] = Field(0.0, ge=0, allow_inf_nan=False)
    """Mean loss, in nats a token, around which a row stops to count (paper: gamma / beta)."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the loss of sequence means."""

        def term(step: ForgetStep) -> Tensor:
            s = step.rows
            return simnpo(s.logits, s.labels, s.mask, beta=self.beta, delta=self.delta)

        return term
