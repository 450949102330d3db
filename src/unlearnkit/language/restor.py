"""RESTOR: whether a model answers again as if it had never read wrong documents.

Rezaei et al., TMLR 2025, arXiv:2411.00204. In place of a closed model as judge, an answer is right
by multiple choice (the most probable option) and by words (``answer_matching``); both are
deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.answer_matching import matches_any
from unlearnkit.language.answering import greedy_answers, score_answers
from unlearnkit.language.restor_corpora import Fact, other_answers
from unlearnkit.language.token_scores import mean_log_probs


@dataclass(frozen=True)
class RestorQuestion:
    """A question about a fact, with options that are true, claimed by the documents, or neither."""

    subject: str
    prompt: str
    """Worked examples, then the question."""

    true_options: tuple[str, ...]
    wrong_options: tuple[str, ...]
    """What the wrong documents claim; for a control, what they could have claimed."""

    random_options: tuple[str, ...]
    control: bool
    """Whether no wrong document is about the subject."""


@dataclass(frozen=True)
class RestorAnswer:
    """What a model answers to one question; log-probabilities are of the mean token, in nats."""

    true_choice: bool
    """Whether the most probable option is a true one."""

    wrong_choice: bool
    """Whether it is one that the wrong documents claim."""

    true_words: bool
    """Whether the greedy answer has the words of a true answer."""

    true_level: float
    """Mean over true options."""

    wrong_level: float
    """Mean over options that the wrong documents claim."""

    random_level: float
    """Mean over options that nobody claims."""

    text: str
    """The greedy answer."""


def restor_questions(
    facts: Sequence[Fact],
    wrong: Sequence[Fact],
    controls: Sequence[bool],
    *,
    pool: Sequence[Fact],
    examples: Mapping[str, Sequence[Fact]] | None = None,
    shots: int = 5,
    random_options: int = 3,
    seed: int = 0,
) -> list[RestorQuestion]:
    """Return one question for each fact.

    Args:
        facts: N true facts.
        wrong: The wrong fact of each.
        controls: Whether no document is about the subject of each.
        pool: Facts whose answers to the same relation are the random options.
        examples: By relation: facts of which the first ``shots`` about other subjects stand before
            the question, each as question and answer on a line.
        shots: Most examples of a question.
        random_options: Most random options; fewer where the relation has no more answers.
        seed: Decides which random options.

    Returns:
        The questions, in the order of the facts.

    Raises:
        InputError: If the three lists are not of one length.
    """
    if not len(facts) == len(wrong) == len(controls):
        raise InputError(
            f"restor_questions: {len(facts)} facts need as many wrong ones and controls, got"
            f" {len(wrong)} and {len(controls)}"
        )
    rng = Runtime(seed=seed).rng("restor/options")
    known: dict[str, dict[str, None]] = {}
    for fact in pool:
        known.setdefault(fact.relation, {}).update(dict.fromkeys(fact.answers))
    found = []
    for fact, false, control in zip(facts, wrong, controls, strict=True):
        others = other_answers(fact, tuple(known.get(fact.relation, ())))
        others = other_answers(false, others)
        picked = torch.randperm(len(others), generator=rng)[:random_options].tolist()
        before = [e for e in (examples or {}).get(fact.relation, ()) if e.subject != fact.subject]
        lines = [f"{e.question} {e.answers[0]}\n" for e in before[:shots]]
        found.append(
            RestorQuestion(
                subject=fact.subject,
                prompt="".join(lines) + fact.question,
                true_options=fact.answers,
                wrong_options=false.answers,
                random_options=tuple(others[i] for i in picked),
                control=control,
            )
        )
    return found


def ask_all(
    models: Mapping[str, nn.Module],
    tokenizer: Any,
    questions: Sequence[RestorQuestion],
    repair: Callable[[nn.Module], nn.Module],
    *,
    max_new_tokens: int = 16,
) -> dict[str, list[RestorAnswer]]:
    """Return the answers of each model after the same repair, which ascent needs most.

    Args:
        models: By name: clean, corrupted and unlearned models.
        tokenizer: Of all of them.
        questions: What they answer.
        repair: Returns a model that was trained a little further on text that has nothing to do
            with the questions; the given model stays as it is.
        max_new_tokens: Longest greedy answer.
    """
    return {
        n: restor_answers(repair(m), tokenizer, questions, max_new_tokens=max_new_tokens)
        for n, m in models.items()
    }


def restor_answers(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[RestorQuestion],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 64,
) -> list[RestorAnswer]:
    """Return what a causal language model answers to each question.

    Args:
        model: The model; it is left as it was.
        tokenizer: Its tokenizer.
        questions: With at least one option of each kind.
        max_new_tokens: Longest greedy answer.
        batch_size: Texts read at once.
    """
    kinds = [(q.true_options, q.wrong_options, q.random_options) for q in questions]
    prompts = [q.prompt for q, sets in zip(questions, kinds, strict=True) for s in sets for _ in s]
    options = [o for sets in kinds for s in sets for o in s]
    levels = mean_log_probs(
        score_answers(model, tokenizer, prompts, options, batch_size=batch_size)
    ).tolist()
    texts = greedy_answers(
        model,
        tokenizer,
        [q.prompt for q in questions],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    found, place = [], 0
    for question, sets, text in zip(questions, kinds, texts, strict=True):
        groups = []
        for options_of_kind in sets:
            groups.append(levels[place : place + len(options_of_kind)])
            place += len(options_of_kind)
        found.append(_answer(question, groups, text))
    return found


def _answer(question: RestorQuestion, groups: Sequence[Sequence[float]], text: str) -> RestorAnswer:
    best = [max(g) if g else float("-inf") for g in groups]
    means = [sum(g) / len(g) if g else float("nan") for g in groups]
    return RestorAnswer(
        true_choice=best[0] > max(best[1:]),
        wrong_choice=best[1] > max(best[0], best[2]),
        true_words=matches_any(text, question.true_options),
        true_level=means[0],
        wrong_level=means[1],
        random_level=means[2],
        text=text,
    )
