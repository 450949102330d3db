"""Whether a correction of features or labels took hold: on the corrected rows, and on old values.

A model retrained on the corrected rows is the measure. Its own values are rarely 0: an untrained
weight still answers to a feature, and a feature can be guessed from others and the target.
"""

from __future__ import annotations

import math

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, mean, metric


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    unit="fraction",
    splits=[Split.CORRECTED],
    tasks=["classification", "multilabel"],
    section=ReportSection.RETAINED,
)
def correction_accuracy(e: Evidence) -> Score:
    """Share of corrected rows that are answered as the correction says.

    After a request for labels: with the right label. After a request for features: without them.
    """
    return mean(1 - e.errors(ModelRole.UNLEARNED, Split.CORRECTED))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=math.inf,
    unit="the task's divergence",
    splits=[Split.FORGET, Split.CORRECTED],
    section=ReportSection.MEMBERSHIP,
)
def feature_use(e: Evidence) -> Score:
    """How much outputs change when the removed feature is put back, on the affected rows.

    The task's divergence (for classes: Kullback-Leibler, in nats) of outputs with the old values
    from outputs with the replaced ones, mean over rows; 0 where the model does not read the
    feature.
    """
    old, new = (e.views[s].data for s in (Split.FORGET, Split.CORRECTED))
    if getattr(old, "x", old) is getattr(new, "x", None):
        return Score(math.nan, note="the request corrects labels: inputs are the same")
    before, after = (e.outputs(ModelRole.UNLEARNED, s) for s in (Split.FORGET, Split.CORRECTED))
    return mean(e.task.divergence(before.double(), after.double()))


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    unit="fraction",
    splits=[Split.FORGET, Split.SHUFFLED],
    section=ReportSection.MEMBERSHIP,
)
def attribute_inference(e: Evidence) -> Score:
    """Share of rows whose own value of the removed feature fits better than another row's.

    An attacker knows a training row and its target, but not the feature; he tries values, and takes
    the one of lower loss (Fredrikson et al., CCS 2015; Yeom et al., CSF 2018). Ties count a half;
    0.5 is what a model tells that does not read the feature.
    """
    own, other = (e.losses(ModelRole.UNLEARNED, s) for s in (Split.FORGET, Split.SHUFFLED))
    return mean((own < other).double() + (own == other).double() / 2)
