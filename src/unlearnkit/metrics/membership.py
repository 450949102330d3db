"""Whether forgotten rows differ from rows that were never seen.

Attacks with one rule for all rows: a score, larger for rows that look trained on. An AUC below 0.5
is a leak too: rows that look worse than unseen ones. The aim is the retrained model's value, not
0.5. No finding here is the weakest evidence of all: such attacks cannot see what the model knows
about single rows.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unlearnkit.attacks.auc_score import AUC_MARGIN, auc_score
from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import chunk, map_rows
from unlearnkit.core.metric import Goal, MetricRole, Score, mean, metric
from unlearnkit.stats import entropy, roc
from unlearnkit.stats.roc import min_negatives

PAIR = (Split.FORGET, Split.HELD_OUT)
LABELS = ("classification",)
attack = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    unit="AUC",
    margin=AUC_MARGIN,
    role=MetricRole.ATTACK,
)
share = partial(metric, Goal.ORACLE, low=0.0, high=1.0, unit="fraction")
published = partial(share, splits=(Split.FORGET, Split.RETAIN, Split.TEST), path="compat")

SVM_ROWS = 25_000
"""Most rows that the published attack is fitted to: its cost grows with their square."""

SVM_USEFUL = 0.6
"""Share of its own rows that the published attack must be right on for its answer to mean much."""

SVM_EACH = 2_000
"""Rows of each kind that the attack published for regression is fitted to."""

Features = npt.NDArray[np.floating[Any]]


@attack(splits=PAIR, section=ReportSection.MEMBERSHIP)
def margin_auc(e: Evidence) -> Score:
    """AUC of the margin between forget rows and never-seen rows.

    The margin is the log-odds of the row's class (several labels: their mean; regression: minus
    the absolute error). It orders rows as the loss does, without a floor.
    """
    forget, unseen = (e.margins(ModelRole.UNLEARNED, s) for s in PAIR)
    return auc_score(forget, unseen)


@share(splits=PAIR, section=ReportSection.MEMBERSHIP)
def margin_tpr_at_1_percent(e: Evidence) -> Score:
    """Share of forget rows that the margin attack catches while at most 1 % of unseen rows pass.

    The interval takes the threshold as given.
    """
    return _tpr(e, 0.01)


@share(splits=PAIR, section=ReportSection.MEMBERSHIP)
def margin_tpr_at_0_1_percent(e: Evidence) -> Score:
    """Share of forget rows that the margin attack catches while at most 0.1 % of unseen rows pass.

    The interval takes the threshold as given.
    """
    return _tpr(e, 0.001)


@attack(splits=PAIR, tasks=LABELS, section=ReportSection.MEMBERSHIP)
def entropy_auc(e: Evidence) -> Score:
    """AUC of minus the entropy of the answer between forget rows and never-seen rows.

    It does not look at targets: a row that is surely wrong looks like a member.
    """

    def score(out: Tensor) -> Tensor:
        log_p = e.task.log_probs(out)
        assert log_p is not None
        return -entropy.entropy(log_p)

    forget, unseen = (e.map(score, s, (ModelRole.UNLEARNED, 0)) for s in PAIR)
    return auc_score(forget, unseen)


@attack(splits=PAIR, tasks=LABELS, section=ReportSection.MEMBERSHIP)
def modified_entropy_auc(e: Evidence) -> Score:
    """AUC of minus the modified entropy between forget rows and never-seen rows.

    Small where the row's own class is sure, large where another is. Song and Mittal, USENIX
    Security 2021, arXiv:2003.10595.
    """

    def score(out: Tensor, y: Tensor) -> Tensor:
        log_p = e.task.log_probs(out)
        assert log_p is not None
        return -entropy.modified_entropy(log_p, y)

    forget, unseen = (
        map_rows(score, e.outputs(ModelRole.UNLEARNED, s), e.targets(s)) for s in PAIR
    )
    return auc_score(forget, unseen)


@attack(splits=[Split.RETAIN, Split.TEST], section=ReportSection.RETAINED)
def retained_margin_auc(e: Evidence) -> Score:
    """AUC of the margin between retained rows and test rows.

    Unlearning can expose the rows that stay: above the retrained model's value, it did.
    """
    return auc_score(
        e.margins(ModelRole.UNLEARNED, Split.RETAIN), e.margins(ModelRole.UNLEARNED, Split.TEST)
    )


@attack(
    reads=[ModelRole.ORIGINAL, ModelRole.UNLEARNED], splits=PAIR, section=ReportSection.TWO_MODELS
)
def two_model_auc(e: Evidence) -> Score:
    """AUC of the fall of the margin, old model minus new, between forget and never-seen rows.

    For an attacker who has both models. Retraining leaks here as well: the aim is its value. After
    Chen et al., CCS 2021, arXiv:2005.02205.
    """
    return auc_score(_fall(e, Split.FORGET), _fall(e, Split.HELD_OUT))


@attack(
    reads=[ModelRole.ORIGINAL, ModelRole.UNLEARNED],
    splits=[Split.FORGET, Split.RETAIN],
    section=ReportSection.TWO_MODELS,
)
def two_model_retained_auc(e: Evidence) -> Score:
    """AUC of the fall of the margin, old model minus new, between forget and retained rows.

    For an attacker who has both models and asks which of the training rows had to go.
    """
    return auc_score(_fall(e, Split.FORGET), _fall(e, Split.RETAIN))


@published(tasks=LABELS)
def svm_mia_efficacy(e: Evidence) -> Score:
    """Share of forget rows that a support-vector machine on confidence calls unseen.

    Confidence is the probability of the row's own class. As published for SalUn and RUM: fitted on
    the model under audit, to the first retained rows (called 1) and the first test rows (called 0),
    as many of both; C = 3, radial kernel, gamma "auto". Larger is not better in itself; no
    false-positive rate is known. Where the machine cannot tell its own rows apart, a note says so:
    the number is then arbitrary.
    """
    count = min(len(e.views[Split.TEST]), len(e.views[Split.RETAIN]))
    shadow = e.outputs(ModelRole.UNLEARNED, Split.RETAIN)[:count], e.targets(Split.RETAIN)[:count]
    test = e.outputs(ModelRole.UNLEARNED, Split.TEST)[:count], e.targets(Split.TEST)[:count]
    size = 2 * count
    if size > SVM_ROWS:
        return Score(
            math.nan,
            note=f"the published attack is fitted to {size} rows here; more than {SVM_ROWS} take"
            " too long",
        )
    members, others = _confidence(*shadow), _confidence(*test)
    asked = _confidence(e.outputs(ModelRole.UNLEARNED, Split.FORGET), e.targets(Split.FORGET))
    called = _called_members(members, others, np.concatenate([asked, members, others]))
    called, own = called[: len(asked)], called[len(asked) :]
    right = float(np.concatenate([own[:count], 1 - own[count:]]).mean())
    note = ""
    if right < SVM_USEFUL:
        note = (
            f"the machine is right on {right:.2f} of the rows that it was fitted to (0.5 is"
            " chance): the value is arbitrary"
        )
    return Score(float(1 - called.mean()), 1 - torch.from_numpy(called), note=note)


@published(tasks=("regression",))
def svm_l1_member_share(e: Evidence) -> Score:
    """Share of forget rows that a support-vector machine on the absolute error calls members.

    As published for regression: fitted on the model under audit, to the first 2,000 retained rows
    (called 1) and test rows (called 0), as many of both; C = 3, radial kernel, gamma "auto". The
    result depends on the targets' scale, and a hard or easy range of targets looks forgotten or
    remembered whichever model is attacked. Code: deep-regression-unlearning, which draws members
    from all training rows, forget rows too.
    """
    count = min(SVM_EACH, len(e.views[Split.TEST]), len(e.views[Split.RETAIN]))
    features = []
    for split, first in ((Split.RETAIN, count), (Split.TEST, count), (Split.FORGET, None)):
        errors = e.errors(ModelRole.UNLEARNED, split)[:first, None]
        if not bool(errors.isfinite().all()):
            return Score(math.nan, note=f"an error on {split} rows is not finite")
        features.append(errors.float().numpy())
    called = torch.from_numpy(_called_members(*features))
    return Score(float(called.mean()), called)


def _called_members(members: Features, others: Features, asked: Features) -> Features:
    """Return what the published machine calls each row that is judged, 1 or 0 ``(n,)``."""
    from sklearn.svm import SVC  # late: slow to import

    machine = SVC(C=3, gamma="auto", kernel="rbf", random_state=0)
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    machine.fit(np.concatenate([members, others]), labels)
    called: Features = machine.predict(asked)
    return called


def _tpr(e: Evidence, fpr: float) -> Score:
    forget, unseen = (e.margins(ModelRole.UNLEARNED, s) for s in PAIR)
    need = min_negatives(fpr)
    if len(unseen) < need:
        return Score(
            math.nan,
            note=f"needs {need} never-seen rows for a false-positive rate of {fpr:.1%}, there are"
            f" {len(unseen)}",
        )
    return mean(roc.caught_at_fpr(forget, unseen, fpr).double())


def _fall(e: Evidence, split: Split) -> Tensor:
    return e.margins(ModelRole.ORIGINAL, split) - e.margins(ModelRole.UNLEARNED, split)


def _confidence(out: Tensor, y: Tensor) -> Features:
    parts = [
        functional.softmax(o.float(), -1).gather(1, t[:, None])
        for o, t in zip(*(torch.split(t, chunk(out)) for t in (out, y)), strict=True)
    ]
    found: Features = torch.cat(parts).numpy()
    return found
