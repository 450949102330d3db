"""Language models: answers, metrics, attacks, RESTOR and made data."""

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    name: home
    for home, names in {
        "answering": ("score_answers", "greedy_answers"),
        "extraction": ("exact_memorization", "extraction_strength"),
        "fictitious_authors": ("AuthorQuestion", "author_questions", "invent_authors"),
        "metric_results": ("MetricResult", "read_metric_results", "write_metric_results"),
        "muse": ("knowledge_memory", "privacy_leak", "verbatim_memory"),
        "question_scores": ("QuestionScores", "forget_results", "score_questions"),
        "recovery": ("Recovery", "recovery_ratio"),
        "restor": ("RestorAnswer", "RestorQuestion", "restor_answers", "restor_questions"),
        "restor_corpora": ("Fact", "mixed_corpus", "read_facts", "wrong_facts"),
        "rouge": ("rouge_l",),
        "sequence_attacks": (
            *("exposure", "loss_score", "min_k_plus_plus_score", "min_k_score"),
            *("reference_score", "zlib_score"),
        ),
        "token_scores": ("TokenScores", "score_tokens"),
        "tofu": ("forget_quality", "forget_truth", "model_utility", "retain_truth", "truth_ratio"),
    }.items()
    for name in names
}

if TYPE_CHECKING:
    from unlearnkit.language.answering import greedy_answers as greedy_answers
    from unlearnkit.language.answering import score_answers as score_answers
    from unlearnkit.language.extraction import exact_memorization as exact_memorization
    from unlearnkit.language.extraction import extraction_strength as extraction_strength
    from unlearnkit.language.fictitious_authors import AuthorQuestion as AuthorQuestion
    from unlearnkit.language.fictitious_authors import author_questions as author_questions
    from unlearnkit.language.fictitious_authors import invent_authors as invent_authors
    from unlearnkit.language.metric_results import MetricResult as MetricResult
    from unlearnkit.language.metric_results import read_metric_results as read_metric_results
    from unlearnkit.language.metric_results import write_metric_results as write_metric_results
    from unlearnkit.language.muse import knowledge_memory as knowledge_memory
    from unlearnkit.language.muse import privacy_leak as privacy_leak
    from unlearnkit.language.muse import verbatim_memory as verbatim_memory
    from unlearnkit.language.question_scores import QuestionScores as QuestionScores
    from unlearnkit.language.question_scores import forget_results as forget_results
    from unlearnkit.language.question_scores import score_questions as score_questions
    from unlearnkit.language.recovery import Recovery as Recovery
    from unlearnkit.language.recovery import recovery_ratio as recovery_ratio
    from unlearnkit.language.restor import RestorAnswer as RestorAnswer
    from unlearnkit.language.restor import RestorQuestion as RestorQuestion
    from unlearnkit.language.restor import restor_answers as restor_answers
    from unlearnkit.language.restor import restor_questions as restor_questions
    from unlearnkit.language.restor_corpora import Fact as Fact
    from unlearnkit.language.restor_corpora import mixed_corpus as mixed_corpus
    from unlearnkit.language.restor_corpora import read_facts as read_facts
    from unlearnkit.language.restor_corpora import wrong_facts as wrong_facts
    from unlearnkit.language.rouge import rouge_l as rouge_l
    from unlearnkit.language.sequence_attacks import exposure as exposure
    from unlearnkit.language.sequence_attacks import loss_score as loss_score
    from unlearnkit.language.sequence_attacks import min_k_plus_plus_score as min_k_plus_plus_score
    from unlearnkit.language.sequence_attacks import min_k_score as min_k_score
    from unlearnkit.language.sequence_attacks import reference_score as reference_score
    from unlearnkit.language.sequence_attacks import zlib_score as zlib_score
    from unlearnkit.language.tofu import forget_quality as forget_quality
    from unlearnkit.language.tofu import forget_truth as forget_truth
    from unlearnkit.language.tofu import model_utility as model_utility
    from unlearnkit.language.tofu import retain_truth as retain_truth
    from unlearnkit.language.tofu import truth_ratio as truth_ratio
    from unlearnkit.language.token_scores import TokenScores as TokenScores
    from unlearnkit.language.token_scores import score_tokens as score_tokens


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Methods need some modules of this package alone, and others take long to import.
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
