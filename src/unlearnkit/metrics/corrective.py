"""Whether the harm of tampered training rows is gone: right answers where they act, and elsewhere.

Goel et al., TMLR 2024, arXiv:2402.14015. These numbers are read off never-trained rows with their
right targets, so they have an ideal of their own: where only some of the tampered rows are known, a
model retrained without those is no oracle.
"""

from __future__ import annotations

from functools import partial

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, mean, metric

harm = partial(
    metric,
    low=0.0,
    high=1.0,
    unit="fraction",
    tasks=("classification",),
    section=ReportSection.UTILITY,
)


@harm(Goal.HIGH, ideal=1.0, splits=[Split.AFFECTED])
def accuracy_corrected(e: Evidence) -> Score:
    """Share of right answers where the tampering acts: rows with the trigger, confused classes.

    Published as Acc_corr. Targets are the right ones, not those of the tampered rows.
    """
    return mean(1 - e.errors(ModelRole.UNLEARNED, Split.AFFECTED))


@harm(Goal.HIGH, ideal=1.0, splits=[Split.ELSEWHERE])
def accuracy_elsewhere(e: Evidence) -> Score:
    """Share of right answers on rows never trained on where the tampering does not act.

    Published as Acc_retain: what the correction must not cost.
    """
    return mean(1 - e.errors(ModelRole.UNLEARNED, Split.ELSEWHERE))


@harm(Goal.LOW, ideal=0.0, splits=[Split.AIMED])
def attack_success(e: Evidence) -> Score:
    """Share of the affected rows that are answered as the tampering wants.

    For a backdoor: rows with the trigger, none of them of the target class, that are called it. A
    model that never saw a tampered row calls some so by mistake.
    """
    return mean(1 - e.errors(ModelRole.UNLEARNED, Split.AIMED))
