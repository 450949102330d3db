"""IdkDPO: a refusal is preferred to the answer that must go."""

from typing import Annotated

import torch
from pydantic import Field

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.answers import preference_term
from unlearnkit.language.language_method import (
    ForgetTerm,
    LanguageMethod,
    language_info,
    language_task,
)

REFUSALS = (
    "I don't know.",
    "I have no information about that.",
    "That is not something I can answer.",
    "I am not sure.",
)


@register
class RefusalPreference(LanguageMethod):
    """Descend on DPO's loss of a refusal against the forget answer, and a retain loss."""

    info = language_info(
        "IdkDPO",
        "Maini et al., COLM 2024, arXiv:2401.06121; Rafailov et al., NeurIPS 2023",
        "For questions with answers, where the model should then say that it does not know. It"
        " learns to refuse: that it refuses shows that something was there.",
        tasks=frozenset({"causal_lm"}),
        differs=(
            "refusals are sentences of our own, of which each row draws one for the whole run;"
            " published code draws from 100 at each step",
        ),
    )

    beta: Annotated[float, SearchRange(0.01, 1, log=True)] = Field(0.1, gt=0, allow_inf_nan=False)
    """How far the model may move from the original."""

    answers: tuple[str, ...] = Field(REFUSALS, min_length=1)
    """The refusals; the case's tokenizer reads them."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Give each forget row a refusal; return the preference for it."""
        reader, rng = language_task(p).reader, rt.rng("idk_dpo/refusals")
        said = [reader.completion(text) for text in self.answers]

        def refuse(prompt: object, own: object) -> list[int]:
            del prompt, own
            return said[int(torch.randint(len(said), (1,), generator=rng))]

        return preference_term(p, rt, refuse, self.beta)
