"""Whether texts that must go differ from unseen ones: attacks made for language models.

Scores are those of ``unlearnkit.language``, larger for text that looks trained on. The aim is the
retrained model's value, not 0.5.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from unlearnkit.attacks.auc_score import AUC_MARGIN, auc_score
from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, metric
from unlearnkit.core.token_rows import IGNORED, TOKEN_TASKS
from unlearnkit.language.muse import privacy_leak
from unlearnkit.language.row_scores import (
    answer_texts,
    label_log_probs,
    label_scores,
    token_scores,
)
from unlearnkit.language.sequence_attacks import (
    loss_score,
    min_k_plus_plus_score,
    min_k_score,
    zlib_score,
)

PAIR = (Split.FORGET, Split.HELD_OUT)
attack_on_text = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    unit="AUC",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
    splits=PAIR,
    tasks=TOKEN_TASKS,
    section=ReportSection.MEMBERSHIP,
)


@attack_on_text()
def loss_attack_auc(e: Evidence) -> Score:
    """AUC of minus the loss, mean over a text's tokens, between forget and never-seen rows.

    Yeom et al., CSF 2018, arXiv:1709.01604.
    """
    return auc_score(*(loss_score(label_scores(e, s)) for s in PAIR))


@attack_on_text()
def zlib_auc(e: Evidence) -> Score:
    """AUC of minus the loss over the bytes of the text under zlib.

    A text that is easy by itself, such as a repetition, counts less. Carlini et al., USENIX
    Security 2021, arXiv:2012.07805. Needs a tokenizer that can decode.
    """
    found = []
    for split in PAIR:
        labels = [y[y != IGNORED].tolist() for y in e.targets(split)]
        texts = answer_texts(e, labels)
        if texts is None:
            return Score(math.nan, note="needs a tokenizer with decode: give processing_class=")
        found.append(zlib_score(label_scores(e, split), texts))
    return auc_score(*found)


@attack_on_text()
def min_k_auc(e: Evidence) -> Score:
    """AUC of Min-40 %: the mean log-probability of a text's 40 % least probable tokens.

    Shi et al., ICLR 2024, arXiv:2310.16789; the share is MUSE's.
    """
    return auc_score(*(min_k_score(label_scores(e, s)) for s in PAIR))


@attack_on_text(models=True)
def min_k_plus_plus_auc(e: Evidence) -> Score:
    """AUC of Min-40 %++: the same, each token standardised by the model's own distribution.

    Zhang et al., ICLR 2025, arXiv:2404.02936. At most 1,000 rows of each kind.
    """
    return auc_score(*(min_k_plus_plus_score(token_scores(e, s)).double() for s in PAIR))


@attack_on_text(reads=[ModelRole.UNLEARNED, ModelRole.ORACLE], tier=AuditTier.REFERENCE)
def reference_auc(e: Evidence) -> Score:
    """AUC of a reference model's loss minus the model's own: the references are retrained models.

    Carlini et al., USENIX Security 2021, arXiv:2012.07805. Their mean loss is taken.
    """

    def score(split: Split) -> Tensor:
        theirs = [label_log_probs(e, split, ModelRole.ORACLE, k) for k in range(e.oracles)]
        return label_log_probs(e, split) - sum(theirs) / len(theirs)

    return auc_score(*map(score, PAIR))


@metric(
    Goal.ORACLE,
    low=-100.0,
    high=math.inf,
    ideal=0.0,
    unit="per cent",
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    splits=PAIR,
    tasks=TOKEN_TASKS,
    tier=AuditTier.REFERENCE,
    section=ReportSection.MEMBERSHIP,
    margin=100 * AUC_MARGIN,
)
def privacy_leakage(e: Evidence) -> Score:
    """MUSE's PrivLeak: Min-40 % AUC against the retrained models', in per cent; 0 is the aim.

    -100 is whole memory; above 0 the forget rows look less seen than unseen ones. Shi et al., ICLR
    2025, arXiv:2407.06460. Mean over the retrained models.
    """
    mine, found = _min_k(e), []
    for k in range(e.oracles):
        one = e.with_candidate(ModelRole.ORACLE, k)
        try:
            found.append(privacy_leak(mine, _min_k(one)))
        except InputError as error:
            return Score(math.nan, note=str(error))
    value = math.fsum(found) / len(found)
    return Score(value, note="a score is not a number" if math.isnan(value) else "")


def _min_k(e: Evidence) -> tuple[Tensor, Tensor]:
    """Return the scores of forget and of never-seen rows."""
    forget, unseen = (min_k_score(label_scores(e, s)) for s in PAIR)
    return forget, unseen
