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


@pytest.mark.parametrize(("metric", "task"), PAIRS)
def test_the_contract_holds(metric, task):
    check_each(METRIC_CHECKS, lambda name: check_metric(metric, tasks=[task], only=[name]))
