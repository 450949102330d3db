"""Whether what a language model forgot comes back under an attack, or was only hidden.

Opt-in: an audit computes these with ``robustness=True``. Probabilities are of
answers of the forget rows, ``P(answer | question)^(1 / tokens)``; the aim is the retrained model's
value under the same attack.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import map_rows, predict
from unlearnkit.core.metric import Goal, Score, mean, metric
from unlearnkit.core.token_rows import IGNORED, TOKEN_TASKS, Tokens
from unlearnkit.language.row_scores import (
    UNLEARNED,
    forms,
    label_nll,
    log_probs_of_rows,
    mean_label_log_probs,
    rows_as_tokens,
)
from unlearnkit.train.relearning import (
    RelearningCurve,
    RelearningTarget,
    fine_tuning_recipe,
    relearn,
)
from unlearnkit.train.weight_rounding import rounded_copy

SAMPLES = 32
"""Answers that are drawn for each question."""

HINTS = 2
"""Other forget rows that stand before a question."""

LESSON = 8
"""Forget rows that are learned again, at most."""

NEAR = 0.05
"""How far above the original's loss on them is enough."""

MOST_STEPS = 100
"""Most steps; beyond, a number is censored."""

LOOKED = 64
"""Most forget rows whose questions are put in other ways."""

robust = partial(
    metric,
    Goal.ORACLE,
    splits=[Split.FORGET],
    section=ReportSection.ROBUSTNESS,
    low=0.0,
)
probability = partial(robust, high=1.0, unit="fraction")


@probability(tasks=TOKEN_TASKS, models=True)
def rounded_8_bit_probability(e: Evidence) -> Score:
    """Mean probability of the forgotten answers after all weights were rounded to 8 bits.

    Per output channel, by its largest weight; simulated. Small changes can vanish in rounding.
    """
    return _rounded(e, 8)


@probability(tasks=TOKEN_TASKS, models=True)
def rounded_4_bit_probability(e: Evidence) -> Score:
    """Mean probability of the forgotten answers after all weights were rounded to 4 bits.

    NF4 in blocks of 64 weights; simulated. Zhang et al., ICLR 2025, arXiv:2410.16454, found
    unlearning undone so.
    """
    return _rounded(e, 4)


@probability(tasks=TOKEN_TASKS)
def sampled_answer_at_32(e: Evidence) -> Score:
    """Chance that at least one of 32 sampled answers is the forgotten one, word for word.

    ``1 - (1 - P)^32`` with P the probability of the whole answer, mean over rows: exact, nothing is
    drawn. An answer that is never the most probable one still comes out so.
    """
    out = e.outputs(UNLEARNED, Split.FORGET)

    def chance(rows: Tensor) -> Tensor:
        return -torch.expm1(SAMPLES * torch.log1p(-(-label_nll(rows)).exp()))

    return mean(map_rows(chance, out))


@probability(tasks=TOKEN_TASKS, models=True)
def paraphrased_question_probability(e: Evidence) -> Score:
    """Mean probability of the forgotten answers after the question in other words.

    Needs a column ``paraphrased_question``. A filter that knows the question's own words misses it.
    """
    known = forms(e, Split.FORGET)
    asked = (
        [] if known is None else [f.other_question for f in known if f.other_question is not None]
    )
    if not asked:
        return Score(
            math.nan, note="needs questions in other words: give a column paraphrased_question"
        )
    return _of_rows(e, "paraphrased", asked)


@probability(tasks=["causal_lm"], models=True)
def hinted_answer_probability(e: Evidence) -> Score:
    """Mean probability of the forgotten answers when other forget rows stand before.

    In context: up to two other forget rows, with their answers, then the question. Of at most 64
    rows.
    """
    view = e.views[Split.FORGET].sample(LOOKED, e.rt, "robustness/rows")
    rows, limit = rows_as_tokens(view), _context(e)
    hinted = [row for i in range(len(rows)) if (row := _with_hints(rows, i, limit)) is not None]
    if not hinted:
        return Score(math.nan, note="no other forget row fits before a question")
    return _of_rows(e, "hinted", hinted)


@robust(
    high=float(MOST_STEPS),
    unit="steps",
    reads=[ModelRole.ORIGINAL, ModelRole.UNLEARNED],
    tasks=TOKEN_TASKS,
    models=True,
)
def relearn_forgotten_steps(e: Evidence) -> Score:
    """Steps of training on a few forget rows until they are as probable as to the original.

    At most 8 rows, the model's own recipe at half its rate, until their loss is within 5 % of the
    original's; no more than 100 steps. Fewer than a retrained model needs: something was left.
    """
    few = e.views[Split.FORGET].sample(LESSON, e.rt, "robustness/lesson")
    target = e.cached(
        "robustness target",
        lambda m: RelearningTarget.near(m, few, NEAR, e.task, e.rt),
        ModelRole.ORIGINAL,
    )

    def teach(model: nn.Module) -> RelearningCurve:
        recipe = fine_tuning_recipe(e.recipe)
        return relearn(
            model, few, None, target, e.task, recipe, e.rt, order=0, cap=MOST_STEPS
        )  # fmt: skip

    found = e.cached(("forgotten again", target.level), teach, UNLEARNED)
    late = "" if found.met else f">{MOST_STEPS} steps; "
    return Score(
        float(found.steps), note=f"{late}to a loss of {target.level:.3g} on {len(few)} rows"
    )


def _rounded(e: Evidence, bits: Literal[4, 8]) -> Score:
    view = e.views[Split.FORGET]

    def again(model: nn.Module) -> Tensor:
        out = predict(rounded_copy(model, bits), view, e.task, e.rt, e.recipe.batch_size)
        return mean_label_log_probs(out)

    before = mean_label_log_probs(e.outputs(UNLEARNED, Split.FORGET)).exp().mean()
    after = e.cached(("rounded", bits), again, UNLEARNED).exp()
    return mean(after, note=f"{float(before):.3f} before rounding")


def _of_rows(e: Evidence, what: str, rows: list[Tokens]) -> Score:
    def ask(model: nn.Module) -> Tensor:
        return log_probs_of_rows(model, rows, e)

    return mean(e.cached((what, len(rows)), ask, UNLEARNED).exp())


def _context(e: Evidence) -> int | None:
    """Return the most tokens of a row: of the reader, or of the model."""
    limit: int | None = cast("Any", e.task).reader.limit
    own = getattr(getattr(e.model(UNLEARNED), "config", None), "max_position_embeddings", None)
    known = [n for n in (limit, own) if isinstance(n, int)]
    return min(known, default=None)


def _with_hints(rows: list[Tokens], i: int, limit: int | None) -> Tokens | None:
    """Return a row after up to two others, as many as fit; None where none does."""
    near = [(i + step) % len(rows) for step in range(1, min(HINTS, len(rows) - 1) + 1)]
    before: list[int] = []
    for j in near:
        if limit is None or len(before) + len(rows[j].ids) + len(rows[i].ids) <= limit:
            before += rows[j].ids
    if not before:
        return None
    return Tokens(before + rows[i].ids, [IGNORED] * len(before) + rows[i].labels)
