"""Negative preference optimisation: ascent that fades below the original model."""

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
from unlearnkit.language.unlearning_losses import npo


@register
class NegativePreference(LanguageMethod):
    """Descend on NPO's loss of the forget rows and a retain loss."""

    info = language_info(
        "NPO",
        "Zhang et al., COLM 2024, arXiv:2404.05868",
        "For documents, authors and facts that must go from a language model: the first to try.",
        differs=(
            "the original's log-probabilities are computed once a row and kept; published code"
            " runs the original at each step",
        ),
    )

    beta: Annotated[float, SearchRange(0.01, 1, log=True)] = Field(0.1, gt=0, allow_inf_nan=False)
    """How soon a row stops to count once it is less likely than under the original; towards 0 the
    loss is gradient ascent."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the loss of sequence sums against the original's."""

        def term(step: ForgetStep) -> Tensor:
            s = step.rows
            kept = step.reference.log_probs(s.batch)
            return npo(s.logits, s.labels, s.mask, kept, beta=self.beta)

        return term
