"""How a language model answers questions: the metrics of TOFU and MUSE.

Maini et al., COLM 2024, arXiv:2401.06121; Shi et al., ICLR 2025, arXiv:2407.06460. Rows give their
right answers in other words and wrong ones in the columns ``paraphrased_answer`` and
``perturbed_answer``. Answers that the model makes up are greedy, of at most 64 rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, mean, metric
from unlearnkit.core.token_rows import IGNORED, TOKEN_TASKS, Tokens
from unlearnkit.language import muse, tofu
from unlearnkit.language.answering import greedy_tokens
from unlearnkit.language.rouge import rouge_l
from unlearnkit.language.row_scores import (
    UNLEARNED,
    answer_texts,
    forms,
    label_log_probs,
    log_probs_of_rows,
    rows_as_tokens,
)

SAID_ROWS = 64
"""Most rows whose answers are generated."""

LONGEST = 128
"""Most tokens of a generated answer (MUSE's continuation)."""

OTHERS = (Split.RETAIN, Split.TEST)
NO_WRONG = "needs wrong answers: give a column perturbed_answer"
NO_DECODE = "needs a tokenizer with decode: give processing_class="

share = partial(metric, Goal.ORACLE, low=0.0, high=1.0, unit="fraction")
known = partial(
    share,
    section=ReportSection.EXPOSURE,
    role=MetricRole.KNOWLEDGE,
    higher_is_better=True,
    each=[Split.FORGET],
)
kept = partial(
    share,
    section=ReportSection.UTILITY,
    role=MetricRole.UTILITY,
    higher_is_better=True,
    each=OTHERS,
)
said: dict[str, Any] = {"tasks": ["causal_lm"], "tier": AuditTier.REFERENCE, "models": True}


@known(tasks=TOKEN_TASKS)
@kept(tasks=TOKEN_TASKS)
def answer_probability(e: Evidence, split: Split) -> Score:
    """Mean of ``P(answer | question)^(1 / tokens)``: TOFU's probability."""
    return mean(tofu.answer_probability(label_log_probs(e, split)))


@known(**said)
@kept(**said)
def rouge_recall(e: Evidence, split: Split) -> Score:
    """Mean ROUGE-L recall of the greedy answers, without a stemmer."""
    found = _answers(e, split, question=True)
    if isinstance(found, str):
        return Score(math.nan, note=found)
    return _mean([rouge_l(new, true).recall for new, true in found])


@share(
    each=[Split.FORGET],
    tasks=TOKEN_TASKS,
    models=True,
    section=ReportSection.EXPOSURE,
)
@share(
    each=OTHERS,
    tasks=TOKEN_TASKS,
    models=True,
    section=ReportSection.UTILITY,
)
def truth_ratio(e: Evidence, split: Split) -> Score:
    """How far right answers are from wrong ones, as TOFU sums up the truth ratio R.

    R is the probability of wrong answers, geometric mean, over that of the right one in their
    words (in its own where there is no ``paraphrased_answer``). Forget rows: mean
    ``min(R, 1 / R)``, good at the retrained model's value. Other rows: mean ``max(0, 1 - R)``.
    """
    ratios = _ratios(e, split)
    if isinstance(ratios, str):
        return Score(math.nan, note=ratios)
    if split is Split.FORGET:
        return mean(torch.minimum(ratios, 1 / ratios))
    return mean((1 - ratios).clamp(min=0))


quality = partial(
    metric,
    low=0.0,
    high=1.0,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    splits=[Split.FORGET],
    tasks=TOKEN_TASKS,
    tier=AuditTier.REFERENCE,
    models=True,
    section=ReportSection.DISTANCE,
)


@quality(Goal.HIGH, ideal=1.0, unit="p-value")
def forget_quality(e: Evidence) -> Score:
    """TOFU's forget quality: p-value of the Kolmogorov-Smirnov test of the truth ratios.

    Against those of all retrained models together. Above 0.05 no difference is shown, which is no
    proof of likeness, least of all with few rows.
    """
    return _quality(e, "p")


@quality(Goal.LOW, ideal=0.0, unit="distance")
def truth_ratio_distance(e: Evidence) -> Score:
    """Kolmogorov-Smirnov distance of the truth ratios from the retrained models'; 0 is none."""
    return _quality(e, "distance")


@share(
    splits=OTHERS,
    section=ReportSection.UTILITY,
    role=MetricRole.UTILITY,
    higher_is_better=True,
    **said,
)
def model_utility(e: Evidence) -> Score:
    """TOFU's model utility: harmonic mean of probability, ROUGE-L recall and truth ratio.

    On retained and on test rows, six numbers; TOFU's other sets are test rows here. 0 if any is 0.
    """
    parts = [
        f(e, split) for split in OTHERS for f in (answer_probability, rouge_recall, truth_ratio)
    ]
    lost = next((p.note for p in parts if math.isnan(p.value)), None)
    if lost is not None:
        return Score(math.nan, note=lost or "a part is undefined")
    return Score(tofu.model_utility([p.value for p in parts]))


@known(**said)
def verbatim_memory(e: Evidence, split: Split) -> Score:
    """MUSE's VerbMem: ROUGE-L F1 of the greedy continuation of a text's first half with the rest.

    Of rows that are texts without a prompt; at most 128 tokens go on.
    """
    found = _answers(e, split, question=False)
    if isinstance(found, str):
        return Score(math.nan, note=found)
    return _mean(muse.verbatim_memory(*zip(*found, strict=True)))


@known(**said)
@share(
    each=[Split.RETAIN],
    section=ReportSection.UTILITY,
    role=MetricRole.UTILITY,
    higher_is_better=True,
    **said,
)
def knowledge_memory(e: Evidence, split: Split) -> Score:
    """MUSE's KnowMem: mean ROUGE-L F1 of the greedy answers to questions."""
    found = _answers(e, split, question=True)
    if isinstance(found, str):
        return Score(math.nan, note=found)
    return _mean(muse.knowledge_memory(*zip(*found, strict=True)))


def _mean(values: Sequence[float]) -> Score:
    return mean(torch.tensor(values, dtype=torch.float64))


def _quality(e: Evidence, part: str) -> Score:
    mine = _ratios(e, Split.FORGET)
    if isinstance(mine, str):
        return Score(math.nan, note=mine)
    theirs = [_ratios(e, Split.FORGET, ModelRole.ORACLE, k) for k in range(e.oracles)]
    found = tofu.forget_quality(mine, torch.cat([t for t in theirs if isinstance(t, Tensor)]))
    return Score(getattr(found, part), note=f"{len(mine)} rows")


def _ratios(e: Evidence, split: Split, who: ModelRole = UNLEARNED, k: int = 0) -> Tensor | str:
    """Return the truth ratios of a split's rows with wrong answers ``(n,)``, or what is missing."""
    known = forms(e, split)
    some = [] if known is None else [i for i, f in enumerate(known) if f.wrong]
    if known is None or not some:
        return NO_WRONG
    counts = {len(known[i].wrong) for i in some}
    if len(counts) > 1:
        return f"needs equally many wrong answers a row, got {min(counts)} to {max(counts)}"

    def ratios(model: nn.Module) -> Tensor:
        wrong = log_probs_of_rows(model, [w for i in some for w in known[i].wrong], e)
        right = label_log_probs(e, split, who, k)[some]
        words = [(place, known[i].paraphrase) for place, i in enumerate(some)]
        other = [(place, said) for place, said in words if said is not None]
        if other:
            new = log_probs_of_rows(model, [said for _, said in other], e)
            right = right.index_copy(0, torch.tensor([p for p, _ in other]), new)
        return tofu.truth_ratio(right, wrong.reshape(len(some), -1))

    return e.cached(("truth ratios", str(split)), ratios, who, k)


def _answers(e: Evidence, split: Split, *, question: bool) -> list[tuple[str, str]] | str:
    """Return greedy answers with the true ones, or why there are none.

    Args:
        e: The evidence.
        split: Its rows with a prompt are questions, those without are texts, of which the first
            half is the prompt.
        question: Which of the two are wanted.

    Returns:
        Pairs of texts; at most 64.
    """
    view = e.views[split].sample(SAID_ROWS, e.rt, f"answers/{split}")
    rows = [(t.ids, _first_label(t)) for t in rows_as_tokens(view)]
    wanted = [(ids, start) for ids, start in rows if (start > 1) == question]
    if not wanted:
        return "no row has a prompt" if question else "every row has a prompt: none is a text"
    cut = [start if question else len(ids) // 2 for ids, start in wanted]
    true = [ids[c:][:LONGEST] for (ids, _), c in zip(wanted, cut, strict=True)]
    texts = answer_texts(e, true)
    if texts is None:
        return NO_DECODE

    def say(model: nn.Module) -> list[list[int]]:
        prompts = [ids[:c] for (ids, _), c in zip(wanted, cut, strict=True)]
        return greedy_tokens(
            model, cast("Any", e.task), prompts, max(map(len, true)), plain=_plain(view)
        )

    new = e.cached(("answers", str(split), question), say, UNLEARNED)
    ends = [tokens[: len(t)] for tokens, t in zip(new, true, strict=True)]
    return list(zip(answer_texts(e, ends) or [], texts, strict=True))


def _first_label(row: Tokens) -> int:
    return next(i for i, y in enumerate(row.labels) if y != IGNORED)


def _plain(view: View) -> bool:
    return isinstance(cast("Any", view.data).x, Tensor)
