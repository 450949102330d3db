"""UNDIAL: self-distillation towards lowered logits of the labels."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.language_method import (
    PUBLISHED_RUN,
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    language_info,
)
from unlearnkit.language.unlearning_losses import undial


@register
class SelfDistillation(LanguageMethod):
    """Descend on the cross-entropy to the original with lower logits of the forget labels."""

    info = language_info(
        "UNDIAL",
        "Dong et al., NAACL 2025, arXiv:2402.10052",
        "Where a run must not be able to diverge: its target is a fixed distribution.",
        presets={
            "paper": {
                "retain_weight": 0.0,
                "run": PUBLISHED_RUN.model_copy(
                    update={
                        "recipe": PUBLISHED_RUN.recipe
                        and PUBLISHED_RUN.recipe.model_copy(update={"lr": 1e-4})
                    }
                ),
            }
        },
        differs=(
            "masked places are left out; published code reads the vocabulary at -100 there and"
            " counts them",
        ),
    )

    beta: Annotated[float, SearchRange(1, 30, log=True)] = Field(10.0, ge=0, allow_inf_nan=False)
    """By how much the logit of the label is lowered in the target (paper: gamma); 0 is plain
    distillation from the original."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the cross-entropy to the original's lowered logits."""

        def term(step: ForgetStep) -> Tensor:
            s = step.rows
            return undial(s.logits, s.labels, s.mask, step.reference.logits(s), beta=self.beta)

        return term
