"""Whether a language model gives away a secret of its training text: a canary's exposure."""

from __future__ import annotations

import math

from torch import Tensor

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.canary import CandidateRows
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import map_rows
from unlearnkit.core.metric import Goal, Score, metric
from unlearnkit.language.row_scores import label_nll
from unlearnkit.language.sequence_attacks import exposure
from unlearnkit.stats.skew_normal import fitted_log_share

NO_CANARY = Score(math.nan, note="the rows are not the candidates of a canary")


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    unit="bits",
    splits=[Split.CANDIDATES],
    tasks=["causal_lm", "classification"],
    section=ReportSection.MEMBERSHIP,
)
def canary_exposure(e: Evidence) -> Score:
    """How far up the model ranks the secret among all strings that it could have been, in bits.

    ``log2 |R| - log2 rank`` by log-perplexity (Carlini et al., USENIX Security 2019,
    arXiv:1802.08232). A secret that the model does not know has 1.44 bits on average; the largest
    value, ``log2 |R|``, is that of the string that the model finds likeliest of all. Equal strings
    share the middle rank. Where R is too large for all to be ranked, the share of likelier strings
    is that of a skew-normal distribution fitted to 10,000 of them.
    """
    data = e.views[Split.CANDIDATES].data
    if not isinstance(data, CandidateRows):
        return NO_CANARY
    bits = log_perplexity(e, data)
    own, others = bits[0], bits[1:]
    if data.complete:
        found = float(exposure(bits[:1], others))
        note = f"rank {len(bits) / 2**found:g} of {len(bits):,}"
    else:
        found = -fitted_log_share(others.numpy(), float(own)) / math.log(2)
        note = f"from a distribution fitted to {len(others):,} of 2^{data.possible:.1f} strings"
    return Score(min(max(found, 0.0), data.possible), note=note)


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    unit="bits",
    splits=[Split.CANDIDATES],
    tasks=["causal_lm", "classification"],
    section=ReportSection.MEMBERSHIP,
)
def canary_log_perplexity(e: Evidence) -> Score:
    """How unlikely the model finds the secret after the text before it, in bits.

    Its log-perplexity ``- sum_i log2 P(s_i | what stands before)``, with the secret's own tokens
    before each position.
    """
    data = e.views[Split.CANDIDATES].data
    if not isinstance(data, CandidateRows):
        return NO_CANARY
    return Score(float(log_perplexity(e, data)[0]))


def log_perplexity(e: Evidence, data: CandidateRows) -> Tensor:
    """Return the log-perplexity of each candidate ``(R,)``, the secret first, in bits, float64."""
    if e.task.name == "causal_lm":
        lost = map_rows(label_nll, e.outputs(ModelRole.UNLEARNED, Split.CANDIDATES))
        return lost / math.log(2)
    log_probs = e.task.log_probs(e.outputs(ModelRole.UNLEARNED, Split.CANDIDATES).double())
    assert log_probs is not None
    return -log_probs[data.contexts, data.tokens].sum(1) / math.log(2)
