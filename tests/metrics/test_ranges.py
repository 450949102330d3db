"""What holds for every metric: true ranges, honest gaps, no dependence on order or chunks."""

import math
from functools import cache

import pytest
import torch
from torch import nn

from tests.metrics.conftest import random_parts
from tests.together import check_each
from unlearnkit.catalog import metrics
from unlearnkit.core import inference as readings
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

ROUNDING = 1e-12
ONE_ROW = dict.fromkeys(Split, 1)
MASK = torch.tensor([0.0, 0.0, -math.inf])


def extreme(z):
    return 1e4 * torch.sign(z)


SCENARIOS = {
    "plain": {},
    "ties": {"shape": torch.round},
    "constant": {"shape": torch.zeros_like},
    "one row": {"sizes": ONE_ROW},
    "one row, extreme": {"sizes": ONE_ROW, "shape": extreme},
    "extreme": {"shape": extreme},
    "large": {"shape": lambda z: 1e4 * z},
    "half precision": {"shape": lambda z: z.half()},
    "half precision, widened": {"shape": lambda z: z.half().float()},
    "double precision": {"shape": lambda z: z.double()},
    "not contiguous": {"shape": lambda z: z.T.contiguous().T},
    "masked class": {"shape": lambda z: z + MASK},
    "one forget class": {"targets": {Split.FORGET: torch.ones(12, dtype=torch.long)}},
    "two classes": {"width": 2},
    "thousand classes": {"width": 1000},
    "one oracle": {"oracles": 1},
    "five oracles": {"oracles": 5},
    "no oracle": {"oracles": 0},
    "no forget rows": {"sizes": dict.fromkeys(Split, 9) | {Split.FORGET: 0}},
    "no unseen rows": {"sizes": dict.fromkeys(Split, 9) | {Split.HELD_OUT: 0, Split.TEST: 0}},
    "many unseen rows": {"sizes": dict.fromkeys(Split, 30) | {Split.HELD_OUT: 10_000}},
    "regression": {"task": "regression"},
    "regression, two targets": {"task": "regression", "width": 2, "shape": extreme},
    "several labels": {"task": "multilabel"},
    "several labels, extreme": {"task": "multilabel", "shape": extreme},
    "several labels, one row": {"task": "multilabel", "sizes": ONE_ROW},
}
PROBLEMS = ("classification", "regression")
FROM_OUTPUTS = [
    m
    for m in metrics().values()
    if m.of_evidence and not m.models and (m.tasks is None or {*PROBLEMS} & {*m.tasks})
]


def serves(m, settings):
    return m.tasks is None or settings.get("task", "classification") in m.tasks


@pytest.fixture(scope="module")
def scenes():
    """Return evidence of a scenario, made once: nothing of it is moved by a metric."""

    @cache
    def scene(name):
        return Evidence.from_outputs(*random_parts(**SCENARIOS[name]), Runtime())

    return scene


@pytest.mark.parametrize("metric", FROM_OUTPUTS, ids=lambda m: m.id)
def test_a_score_lies_in_its_range_or_says_why_it_is_undefined(scenes, metric):
    names = [name for name, s in SCENARIOS.items() if serves(metric, s)]
    check_each(names, lambda name: check_score(metric, metric(scenes(name))))


def check_score(metric, score):
    if math.isnan(score.value):
        assert score.note
        return
    assert metric.low - ROUNDING <= score.value <= metric.high + ROUNDING
    if score.rows is not None:
        assert score.rows.ndim == 1
        assert score.rows.dtype == torch.float64
        assert score.value == pytest.approx(score.rows.mean().item(), rel=1e-12, abs=1e-12)
    if score.interval is not None:
        low, high = score.interval
        assert metric.low <= low <= score.value <= high <= metric.high
        assert score.method


@pytest.mark.parametrize(
    ("metric", "task"),
    [
        pytest.param(m, task, id=f"{m.id}-{task}")
        for m in FROM_OUTPUTS
        for task in ("classification", "regression", "multilabel")
        if serves(m, {"task": task})
    ],
)
def test_the_order_of_rows_changes_nothing(parts, stored, metric, task):
    # As many retained as test rows: the published attack takes the first of the retained ones.
    sizes = dict.fromkeys(Split, 20) | {Split.HELD_OUT: 1000}
    outputs, targets, kind = parts(task=task, sizes=sizes)
    order = {
        s: torch.randperm(n, generator=torch.Generator().manual_seed(1)) for s, n in sizes.items()
    }
    shuffled = {who: {s: o[order[s]] for s, o in outs.items()} for who, outs in outputs.items()}
    mixed = {s: y[order[s]] for s, y in targets.items()}

    before = metric(stored(outputs, targets, kind)).value
    after = metric(stored(shuffled, mixed, kind)).value

    # The published sum is in single precision.
    rounding = 1e-6 if metric.path == "compat" else 1e-12
    assert after == pytest.approx(before, rel=rounding, abs=rounding, nan_ok=True)


@pytest.mark.parametrize("metric", FROM_OUTPUTS, ids=lambda m: m.id)
def test_the_size_of_chunks_changes_nothing(make, metric, monkeypatch):
    task = "classification" if serves(metric, {}) else "regression"
    whole = metric(make(task=task)).value
    monkeypatch.setattr(readings, "CHUNK", 3)
    assert metric(make(task=task)).value == pytest.approx(whole, rel=1e-12, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", FROM_OUTPUTS, ids=lambda m: m.id)
def test_a_metric_reads_only_what_it_declares(parts, stored, metric):
    task = "classification" if serves(metric, {}) else "regression"
    outputs, targets, kind = parts(task=task)
    declared = {
        name: {s: o for s, o in outs.items() if s in metric.splits}
        for name, outs in outputs.items()
        if name.startswith("random/") or any(name.startswith(str(who)) for who in metric.reads)
    }
    part = stored(declared, {s: y for s, y in targets.items() if s in metric.splits}, kind)

    assert metric.serves(part)
    whole = metric(stored(outputs, targets, kind)).value
    assert metric(part).value == pytest.approx(whole, nan_ok=True, abs=0)


@pytest.mark.parametrize("metric", FROM_OUTPUTS, ids=lambda m: m.id)
def test_missing_rows_and_models_are_named(parts, stored, metric):
    task = "classification" if serves(metric, {}) else "regression"
    outputs, targets, kind = parts(task=task)
    split = sorted(metric.splits)[0]
    targets = targets | {split: targets[split][:0]}
    outputs = {n: outs | {split: outs[split][:0]} for n, outs in outputs.items()}

    score = metric(stored(outputs, targets, kind))

    assert math.isnan(score.value)
    assert f"no {split} rows" in score.note


def test_a_single_oracle_in_the_seat_has_no_distance_to_itself(make):
    seated = make(oracles=1).with_candidate(ModelRole.ORACLE, 0)
    score = metrics()["js_forget"](seated)
    assert math.isnan(score.value)
    assert "no oracle" in score.note


DISTANCES = [m for m in FROM_OUTPUTS if m.distance]


@pytest.mark.parametrize("metric", DISTANCES, ids=lambda m: m.id)
@pytest.mark.parametrize("oracles", [1, 3])
def test_a_model_is_at_no_distance_from_itself(parts, stored, metric, oracles):
    task = "classification" if serves(metric, {}) else "regression"
    outputs, targets, kind = parts(task=task, oracles=oracles)
    outputs |= {f"oracle/{k}": outputs["unlearned"] for k in range(oracles)}
    best = {Goal.LOW: 0.0, Goal.HIGH: 1.0}[metric.goal]
    score = metric(stored(outputs, targets, kind))
    assert score.value == pytest.approx(best, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("metric", DISTANCES, ids=lambda m: m.id)
def test_a_distance_is_the_mean_of_the_distances_to_each_oracle(parts, stored, metric):
    task = "classification" if serves(metric, {}) else "regression"
    outputs, targets, kind = parts(task=task, oracles=3)
    alone = [
        metric(
            stored(
                {"unlearned": outputs["unlearned"], "oracle/0": outputs[f"oracle/{k}"]},
                targets,
                kind,
            )
        )
        for k in range(3)
    ]
    together = metric(stored(outputs, targets, kind))
    assert together.value == pytest.approx(sum(s.value for s in alone) / 3, rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_changes_no_metric(size):
    rng = torch.Generator().manual_seed(3)

    def net(seed):
        init = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=init))
        return model

    task, models = Classification(3), {"original": net(0), "unlearned": net(1), "oracle/0": net(2)}
    views = {
        s: View.all(
            TensorData(
                torch.randn(15, 4, generator=rng).double(),
                torch.randint(0, 3, (15,), generator=rng),
            )
        )
        for s in Split
    }

    def scores(batch_size):
        e = Evidence(models, views, task, Runtime(), random=net, batch_size=batch_size)
        return {n: m(e).value for n, m in metrics().items() if m.serves(e)}

    assert len(scores(15)) > 30
    assert scores(size) == pytest.approx(scores(15), rel=1e-9, abs=1e-12, nan_ok=True)
    assert all(m.training for m in models.values())
