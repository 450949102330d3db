"""MUSE metrics: verbatim memory, knowledge memory and privacy leakage.

Shi et al., ICLR 2025, arXiv:2407.06460.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.language.rouge import rouge_l
from unlearnkit.stats.roc import auc

STOPS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer to a question ends."""


def verbatim_memory(continuations: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Return ROUGE-L F1 of each greedy continuation of a prefix with the true one (VerbMem).

    The published setting continues prefixes of forget documents by 128 tokens. The aim is the
    retrained model's mean, not 0.
    """
    return [rouge_l(said, true).f1 for said, true in zip(continuations, truths, strict=True)]


def knowledge_memory(outputs: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Return ROUGE-L F1 of each answer, up to where the next question starts (KnowMem)."""
    return [
        rouge_l(first_answer(said), true).f1 for said, true in zip(outputs, answers, strict=True)
    ]


def first_answer(output: str, stops: Sequence[str] = STOPS) -> str:
    """Return the text up to the first of the stops."""
    return output[: min([output.find(s) for s in stops if s in output], default=len(output))]


def privacy_leak(
    unlearned: tuple[Tensor, Tensor],
    retrained: tuple[Tensor, Tensor],
) -> float:
    """Return PrivLeak: ``100 ((1 - A) - (1 - A_r)) / (1 - A_r)``.

    A is the chance that a forget text scores above a held-out one under the unlearned model, A_r
    under the retrained one. 0 is the aim, -100 whole memory (A = 1); above 0 forget texts look less
    seen than unseen ones, up to ``100 A_r / (1 - A_r)``.

    Args:
        unlearned: Scores of forget and of held-out texts, larger for text that looks trained on;
            published with ``min_k_score`` at a share of 0.4.
        retrained: The same texts under the retrained model.

    Returns:
        Per cent; nan where either group is empty or has a nan.

    Raises:
        InputError: If the retrained model's A is 1: there is no measure of leakage then.
    """
    area, aim = auc(*unlearned), auc(*retrained)
    if aim == 1:
        raise InputError(
            "privacy_leak: every forget text scores above every held-out one under the retrained"
            " model; choose held-out texts like the forget set"
        )
    return 100 * (aim - area) / (1 - aim)
