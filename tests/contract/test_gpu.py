"""The same contract on an accelerator."""

import pytest
import torch

from unlearnkit import catalog
from unlearnkit.testing import check_method, check_metric

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device here", allow_module_level=True)

METHODS = [
    pytest.param(i, task, id=f"{i}-{task}")
    for i, cls in catalog.methods().items()
    for task in sorted(cls.info.tasks)
]
METRICS = [
    pytest.param(i, task, id=f"{i}-{task}")
    for i, m in catalog.metrics().items()
    if m.of_evidence
    for task in sorted(m.tasks or catalog.tasks())
]


@pytest.mark.parametrize(("method", "task"), METHODS)
def test_a_method_keeps_the_contract(method, task):
    check_method(method, tasks=[task], device="cuda")


@pytest.mark.parametrize(("metric", "task"), METRICS)
def test_a_metric_keeps_the_contract(metric, task):
    check_metric(metric, tasks=[task], device="cuda")
