"""AltPO: another answer of the model's own is preferred to the one that must go."""

from typing import Annotated

from pydantic import Field

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.answers import preference_term, sampled_answer
from unlearnkit.language.language_method import ForgetTerm, LanguageMethod, language_info


@register
class AlternativePreference(LanguageMethod):
    """Descend on DPO's loss of a sampled answer against the forget answer, and a retain loss."""

    info = language_info(
        "AltPO",
        "Mekala et al., COLING 2025, arXiv:2409.13474",
        "For facts in answers to questions, where the model should give a plausible other answer.",
        tasks=frozenset({"causal_lm"}),
        differs=(
            "the other answer is drawn from the original model token by token, as long as the own"
            " one and with another first token; the paper asks an instruct model for five in words",
        ),
    )

    beta: Annotated[float, SearchRange(0.01, 1, log=True)] = Field(0.1, gt=0, allow_inf_nan=False)
    """How far the model may move from the original."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Draw another answer to each forget row; return the preference for it."""
        drawn = sampled_answer(p.original, p, rt, "altpo/answers")
        return preference_term(p, rt, drawn, self.beta)
