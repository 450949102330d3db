"""Evidence made of stored outputs, without models."""

import pytest
import torch

from unlearnkit.auditing.metric_table import metric_rows
from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification


@pytest.fixture(scope="module")
def stored():
    rng = torch.Generator().manual_seed(0)
    splits = (Split.FORGET, Split.RETAIN, Split.HELD_OUT, Split.TEST)
    outputs = {
        who: {s: torch.randn(40, 3, generator=rng) for s in splits}
        for who in ("original", "unlearned")
    }
    targets = {s: torch.arange(40) % 3 for s in splits}
    return Evidence.from_outputs(outputs, targets, Classification(3), Runtime())


def test_metrics_that_need_models_do_not_serve_stored_outputs(stored):
    needy = {name for name, m in metrics().items() if m.models}
    assert needy
    assert not any(metrics()[name].serves(stored) for name in needy)


def test_the_table_of_stored_outputs_has_every_metric_that_needs_no_model(stored):
    shown = {row.metric for row in metric_rows(stored, "fast")}
    want = {n for n, m in metrics().items() if m.tier == "fast" and m.serves(stored)}
    assert shown == want != set()
