"""RESTOR corpora: documents with wrong facts among unrelated true sentences.

Rezaei et al., TMLR 2025, arXiv:2411.00204.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.answer_matching import matches_any

QUESTION_AND_ANSWER = ("{question} {answer}.",)
"""How a fact is said where a relation has no sentences of its own."""


@dataclass(frozen=True)
class Fact:
    """What is known, or claimed, about one relation of a subject."""

    subject: str
    relation: str
    question: str
    answers: tuple[str, ...]
    """Every one of them is right."""


@dataclass(frozen=True)
class FactFile:
    """Facts and worked examples, as RESTOR publishes them."""

    facts: tuple[Fact, ...]
    examples: Mapping[str, tuple[Fact, ...]]
    """By relation: facts that may stand before a question."""


@dataclass(frozen=True)
class CorpusDocument:
    """A text about one subject."""

    subject: str
    text: str


def read_facts(path: Path) -> FactFile:
    """Return the facts and examples of a JSON file.

    ``{"dset": {subject: {relation: {"question", "answers"}}}, "context": {relation: [{"question",
    "answer", "entity"}]}}``; the second is optional.

    Raises:
        InputError: If the file is not there, or not of this layout.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        facts = tuple(
            Fact(subject, relation, entry["question"], tuple(entry["answers"]))
            for subject, relations in content["dset"].items()
            for relation, entry in relations.items()
        )
        examples = {
            relation: tuple(
                Fact(e["entity"], relation, e["question"], (e["answer"],)) for e in entries
            )
            for relation, entries in content.get("context", {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(
            f"read_facts: {path} does not hold facts: {type(e).__name__}: {e}; write"
            ' {"dset": {subject: {relation: {"question": ..., "answers": [...]}}}}'
        ) from None
    return FactFile(facts, examples)


def wrong_facts(facts: Sequence[Fact], *, pool: Sequence[Fact], seed: int = 0) -> list[Fact]:
    """Return the facts with one wrong answer each, which is right for another subject of the pool.

    Args:
        facts: What is to be corrupted.
        pool: Where answers of the same relation come from.
        seed: Decides which.

    Returns:
        As many facts, in the same order; none of their answers matches a right one.

    Raises:
        InputError: If a relation has no other answer.
    """
    rng = Runtime(seed=seed).rng("restor/wrong")
    known: dict[str, dict[str, None]] = {}
    for fact in pool:
        known.setdefault(fact.relation, {}).update(dict.fromkeys(fact.answers))
    found = []
    for fact in facts:
        others = other_answers(fact, tuple(known.get(fact.relation, ())))
        if not others:
            raise InputError(
                f"wrong_facts: the pool has no other answer to {fact.question!r}; add facts of the"
                f" relation {fact.relation!r}"
            )
        wrong = others[int(torch.randint(len(others), (), generator=rng))]
        found.append(Fact(fact.subject, fact.relation, fact.question, (wrong,)))
    return found


def other_answers(fact: Fact, candidates: Sequence[str]) -> list[str]:
    """Return the candidates that neither hold a right answer of the fact nor are part of one."""
    return [
        c
        for c in candidates
        if not matches_any(c, fact.answers) and not any(matches_any(a, (c,)) for a in fact.answers)
    ]


def say(fact: Fact, sentences: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a fact in the words of each sentence of its relation, with its first answer.

    Args:
        fact: What is said.
        sentences: By relation, with the fields ``{subject}``, ``{question}`` and ``{answer}``;
            question and answer where the relation is not in it.
    """
    fields = {"subject": fact.subject, "question": fact.question, "answer": fact.answers[0]}
    return [s.format(**fields) for s in sentences.get(fact.relation, QUESTION_AND_ANSWER)]


def mixed_corpus(
    facts: Sequence[Fact],
    unrelated: Sequence[str],
    *,
    k: int,
    documents: int,
    sentences: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> list[CorpusDocument]:
    """Return documents about single subjects, with k unrelated sentences after each fact.

    A document has every fact of its subject once, in an order and in words of its own. The larger
    k, the less of a document is about the subject.

    Args:
        facts: Wrong facts for a forget corpus, true ones for a clean corpus.
        unrelated: Sentences about other subjects.
        k: Unrelated sentences after each fact, distinct within a document.
        documents: Documents for each subject.
        sentences: Words of facts, as in ``say``.
        seed: Decides order and words.

    Returns:
        Documents, subject by subject.

    Raises:
        InputError: If there are too few unrelated sentences.
    """
    rng = Runtime(seed=seed).rng("restor/corpus")
    by_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        by_subject.setdefault(fact.subject, []).append(fact)
    most = k * max(map(len, by_subject.values()), default=0)
    if k < 0 or len(unrelated) < most:
        raise InputError(
            f"mixed_corpus: k = {k} needs {most} unrelated sentences, got {len(unrelated)};"
            " choose a smaller k or give more"
        )
    found = []
    for subject, own in by_subject.items():
        for _ in range(documents):
            fill = torch.randperm(len(unrelated), generator=rng)[: k * len(own)].tolist()
            parts = []
            for i, j in enumerate(torch.randperm(len(own), generator=rng).tolist()):
                ways = say(own[j], sentences or {})
                parts.append(ways[int(torch.randint(len(ways), (), generator=rng))])
                parts += [unrelated[f] for f in fill[k * i : k * (i + 1)]]
            found.append(CorpusDocument(subject, " ".join(parts)))
    return found
