"""Every metric keeps the contract on every task that it serves; nothing here names a metric."""

import pytest

from tests.together import check_each
from unlearnkit import catalog
from unlearnkit.testing import check_metric
from unlearnkit.testing.metrics import METRIC_CHECKS

PAIRS = [
    pytest.param(
        i,
        task,
        id=f"{i}-{task}",
        marks=[pytest.mark.exhaustive] if task in {"masked_lm", "seq2seq"} else [],
    )
    for i, m in catalog.metrics().items()
    if m.of_evidence
    for task in sorted(m.tasks or catalog.tasks())
]


WHATEVER_THE_TASK = {
    "declaration_complete",
    "refuses_what_is_missing",
    "leaves_all_alone",
    "same_value_twice",
}
"""What does not look at the values of outputs and targets: checked on a metric's first task."""


def check(metric, task, names):
    check_each(names, lambda name: check_metric(metric, tasks=[task], only=[name]))


@pytest.mark.parametrize(("metric", "task"), PAIRS)
def test_the_contract_holds(metric, task):
    assert set(METRIC_CHECKS) > WHATEVER_THE_TASK
    first = min(catalog.metrics()[metric].tasks or catalog.tasks())
    left_out = set() if task == first else WHATEVER_THE_TASK
    check(metric, task, [name for name in METRIC_CHECKS if name not in left_out])


@pytest.mark.exhaustive
@pytest.mark.parametrize(("metric", "task"), PAIRS)
def test_the_whole_contract_holds_on_every_task(metric, task):
    check(metric, task, METRIC_CHECKS)
