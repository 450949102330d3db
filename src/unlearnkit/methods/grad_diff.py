"""Gradient difference: ascent on the forget set with a retain loss."""

from torch import Tensor

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    language_info,
)


@register
class GradientDifference(LanguageMethod):
    """Descend on ``-forget_weight * forget loss + retain_weight * retain loss``."""

    info = language_info(
        "Gradient difference",
        "Liu et al., CoLLAs 2022, arXiv:2203.12817; Maini et al., COLM 2024, arXiv:2401.06121",
        "As the baseline of language models; a bounded loss, as `npo` has, does less harm.",
        presets={"paper": {}, "kl": {"retain_loss": "kl"}},
        fails=(
            "at published settings the forget loss has no bound: on TOFU forget10 the model's"
            " forget quality is 1e-239 (OpenUnlearning, docs/repro.md)",
        ),
    )

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return minus the mean loss of the forget labels."""

        def term(step: ForgetStep) -> Tensor:
            return -step.rows.nll("token")

        return term
