"""Entropy attacks: forget rows that a classifier of entropies calls members.

Published with classes of unequal size, which decides what such a classifier calls most rows. Here
it is fitted to as many retained as test rows, drawn at random. The aim is the retrained model's
value, not 0; no false-positive rate is known.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric
from unlearnkit.stats import entropy

if TYPE_CHECKING:
    from collections.abc import Callable

EACH = 2_000
"""Most rows of each kind that a classifier is fitted to: a kernel costs their square."""

USEFUL = 0.6
"""Share of its own rows that a classifier must be right on for its answer to mean much."""

entropy_attack = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=[Split.FORGET, Split.RETAIN, Split.TEST],
    tasks=["classification"],
    unit="fraction",
    section=ReportSection.MEMBERSHIP,
)


@entropy_attack()
def entropy_logistic_member_share(e: Evidence) -> Score:
    """Share of forget rows that a logistic regression on the entropy of the answer calls members.

    Fitted to as many retained rows (called members) as test rows. Where it cannot tell these apart
    a note says so: the number is then arbitrary. After Foster et al., AAAI 2024, arXiv:2308.07707.
    """
    from sklearn.linear_model import LogisticRegression  # late: slow to import

    return _member_share(e, LogisticRegression)


@entropy_attack()
def entropy_svm_member_share(e: Evidence) -> Score:
    """Share of forget rows that a support-vector machine on the answer's entropy calls members.

    Radial kernel, C = 3, gamma "auto", as published, but fitted to as many retained rows (called
    members) as test rows. Where it cannot tell these apart a note says so: the number is then
    arbitrary. After Chundawat et al., AAAI 2023, arXiv:2205.08096.
    """
    from sklearn.svm import SVC  # late: slow to import

    return _member_share(e, partial(SVC, C=3, gamma="auto", kernel="rbf", random_state=0))


def _member_share(e: Evidence, make: Callable[[], Any]) -> Score:
    count = min(EACH, *(len(e.views[s]) for s in (Split.RETAIN, Split.TEST)))
    members, others = (
        x[torch.randperm(len(x), generator=e.rt.rng(f"entropy_attack/{s}"))[:count]]
        for s in (Split.RETAIN, Split.TEST)
        for x in [_entropies(e, s)]
    )
    labels = torch.cat([torch.ones(count), torch.zeros(count)]).numpy()
    own = torch.cat([members, others])[:, None].numpy()
    fitted = make().fit(own, labels)
    called = torch.from_numpy(fitted.predict(_entropies(e, Split.FORGET)[:, None].numpy())).double()
    right = float((fitted.predict(own) == labels).mean())
    note = ""
    if right < USEFUL:
        note = (
            f"the classifier is right on {right:.2f} of the rows that it was fitted to (0.5 is"
            " chance): the value is arbitrary"
        )
    return Score(called.mean().item(), called, note)


def _entropies(e: Evidence, split: Split) -> Tensor:
    def of_row(out: Tensor) -> Tensor:
        log_p = e.task.log_probs(out)
        assert log_p is not None
        return entropy.entropy(log_p)

    return e.map(of_row, split, (ModelRole.UNLEARNED, 0))
