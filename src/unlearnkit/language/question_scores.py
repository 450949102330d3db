"""Question scores: how a language model treats right and wrong answers to each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unlearnkit.core.errors import InputError
from unlearnkit.language.answering import greedy_answers, score_answers
from unlearnkit.language.fictitious_authors import AuthorQuestion
from unlearnkit.language.metric_results import MetricResult
from unlearnkit.language.rouge import rouge_l
from unlearnkit.language.tofu import (
    Average,
    answer_probability,
    choice_probability,
    forget_truth,
    retain_truth,
    truth_ratio,
)
from unlearnkit.language.token_scores import TokenScores, mean_log_probs


class UtilityParts(NamedTuple):
    """Three numbers of one set of questions that ``model_utility`` takes; all in [0, 1]."""

    probability: float
    recall: float
    truth: float


@dataclass(frozen=True)
class QuestionScores:
    """What a model makes of N questions; log-probabilities are of the mean token, in nats."""

    answers: list[TokenScores]
    """Token by token, of the right answers."""

    right: Tensor
    """Log-probabilities of the right answers ``(N,)``."""

    paraphrases: Tensor
    """Of the right answers in other words ``(N,)``."""

    wrong: Tensor
    """Of the wrong answers in those words ``(N, J)``."""

    recall: Tensor
    """ROUGE-L recall of the greedy answers ``(N,)``."""

    texts: list[str]
    """The greedy answers."""

    def truth_ratios(self, average: Average = "geometric") -> Tensor:
        """Return wrong against paraphrased right answers ``(N,)``."""
        return truth_ratio(self.paraphrases, self.wrong, average)

    def utilities(self) -> UtilityParts:
        """Return probability, recall and truth of questions from a fine-tuned set."""
        return UtilityParts(
            float(answer_probability(self.right).double().mean()),
            float(self.recall.mean()),
            retain_truth(self.truth_ratios()),
        )

    def world_utilities(self) -> UtilityParts:
        """Return the same of questions from elsewhere, such as world facts.

        There the probability is that of a choice among all answers, and the truth ratio takes the
        right answer in its own words.
        """
        return UtilityParts(
            float(choice_probability(self.right, self.wrong).double().mean()),
            float(self.recall.mean()),
            retain_truth(truth_ratio(self.right, self.wrong)),
        )


def score_questions(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[AuthorQuestion],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 64,
) -> QuestionScores:
    """Return the scores of a causal language model on questions with equally many wrong answers.

    Args:
        model: The model; it is left as it was.
        tokenizer: Its tokenizer.
        questions: What it is scored on.
        max_new_tokens: Longest greedy answer.
        batch_size: Texts read at once.

    Returns:
        The scores, on the CPU.

    Raises:
        InputError: If there is no question, or they have different numbers of wrong answers.
    """
    counts = {len(q.wrong_answers) for q in questions}
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            f"score_questions: each question needs as many wrong answers, got {sorted(counts)}"
        )
    kinds = [[q.answer, q.paraphrased_answer, *q.wrong_answers] for q in questions]
    prompts = [q.question for q in questions]
    found = score_answers(
        model,
        tokenizer,
        [p for p, kind in zip(prompts, kinds, strict=True) for _ in kind],
        [a for kind in kinds for a in kind],
        batch_size=batch_size,
    )
    levels = mean_log_probs(found).reshape(len(questions), -1)
    texts = greedy_answers(
        model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    recall = [rouge_l(t, q.answer).recall for t, q in zip(texts, questions, strict=True)]
    return QuestionScores(
        answers=found[:: len(kinds[0])],
        right=levels[:, 0],
        paraphrases=levels[:, 1],
        wrong=levels[:, 2:],
        recall=torch.tensor(recall, dtype=torch.float64),
        texts=texts,
    )


def forget_results(scores: QuestionScores) -> dict[str, MetricResult]:
    """Return scores on the forget set under the names of the leading benchmark's result file."""
    ratios = scores.truth_ratios()
    return {
        "forget_Q_A_Prob": _result("prob", answer_probability(scores.right)),
        "forget_Q_A_ROUGE": _result("rougeL_recall", scores.recall),
        "forget_truth_ratio": MetricResult(
            agg_value=forget_truth(ratios), value_by_index=_items("score", ratios)
        ),
    }


def _result(name: str, values: Tensor) -> MetricResult:
    return MetricResult(
        agg_value=float(values.double().mean()), value_by_index=_items(name, values)
    )


def _items(name: str, values: Tensor) -> dict[str, dict[str, object] | None]:
    return {str(i): {name: v} for i, v in enumerate(values.tolist())}
