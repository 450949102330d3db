"""CE-U: descent towards the model's own distribution without the label."""

from torch import Tensor

from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    language_info,
)
from unlearnkit.language.unlearning_losses import ceu


@register
class CrossEntropyUnlearning(LanguageMethod):
    """Descend on the cross-entropy to the model's distribution without the forget labels."""

    info = language_info(
        "CE-U",
        "Yang, 2025, arXiv:2503.01224",
        "Where no constant should have to be chosen: the loss has none.",
        presets={"paper": {"retain_weight": 0.0}},
    )

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the cross-entropy; each sequence's first label is left out."""

        def term(step: ForgetStep) -> Tensor:
            return ceu(step.rows.logits, step.rows.labels, step.rows.mask)

        return term
