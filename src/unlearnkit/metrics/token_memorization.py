"""How much of the forget rows a language model says word for word."""

from __future__ import annotations

from functools import partial

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, mean, metric
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.language import extraction
from unlearnkit.language.row_scores import token_scores

memorized = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    unit="fraction",
    splits=[Split.FORGET],
    models=True,
    section=ReportSection.EXPOSURE,
    role=MetricRole.KNOWLEDGE,
    higher_is_better=True,
)


@memorized(tasks=TOKEN_TASKS)
def exact_memorization(e: Evidence) -> Score:
    """Share of the forget rows' tokens that are the model's first choice, teacher forced.

    Tirumala et al., NeurIPS 2022, arXiv:2205.10770. At most 1,000 rows.
    """
    return mean(extraction.exact_memorization(token_scores(e, Split.FORGET)))


@memorized(tasks=["causal_lm", "seq2seq"])
def extraction_strength(e: Evidence) -> Score:
    """Share of a forget row that the model goes on with rightly to its end, once so much is given.

    ``1 - k / L`` with k the shortest prefix after which all tokens are the first choice: 1 where
    the whole row comes without any, 0 where its last token is wrong. Carlini et al., USENIX
    Security 2021, arXiv:2012.07805. At most 1,000 rows.
    """
    return mean(extraction.extraction_strength(token_scores(e, Split.FORGET)))
