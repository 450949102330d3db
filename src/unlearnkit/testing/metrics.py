"""The contract of a metric, checked on evidence of many shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unlearnkit import catalog
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Metric, Score
from unlearnkit.core.module_state import on_device
from unlearnkit.core.runtime import Runtime
from unlearnkit.testing.subject import (
    bits,
    disturb,
    expect,
    generators,
    same_bits,
    toy,
    trained_model,
)
from unlearnkit.unlearning.run_method import fresh_model

ORACLES = 3


@dataclass(frozen=True)
class MetricInputs:
    """What evidence is made of: models by name, rows by split."""

    case: Case
    models: Mapping[str, nn.Module]
    views: Mapping[Split, View]
    device: str = "cpu"

    def evidence(self, batch_size: int = 512) -> Evidence:
        """Return evidence with nothing computed yet."""
        rt, case = Runtime.on(self.device), self.case
        return Evidence(
            {name: on_device(m, rt.device) for name, m in self.models.items()},
            self.views,
            case.task,
            rt,
            random=lambda seed: fresh_model(case, rt.fork(seed)).double(),
            batch_size=batch_size,
        )

    def only(self, who: Iterable[ModelRole], splits: Iterable[Split]) -> MetricInputs:
        """Return the same with some models and splits alone."""
        kinds, kept = set(who), set(splits)
        models = {n: m for n, m in self.models.items() if ModelRole(n.partition("/")[0]) in kinds}
        return replace(
            self, models=models, views={s: v for s, v in self.views.items() if s in kept}
        )


@dataclass(frozen=True)
class Measured:
    """A metric on a task's toy problem."""

    metric: Metric
    task: str
    device: str = "cpu"

    def seen(self, shape: str = "plain") -> MetricInputs:
        """Return models and rows of a shape that ``SHAPES`` names."""
        case = toy(self.task)
        assert isinstance(case.train, TensorData)
        assert isinstance(case.test, TensorData)
        models = {"original": trained_model(case, self.task)}
        for i, name in enumerate(["unlearned", *(f"oracle/{k}" for k in range(ORACLES))]):
            models[name] = fresh_model(case, Runtime(seed=100 + i))
        train, test = View.all(case.train), View.all(case.test)
        assert isinstance(case.train.x, Tensor)
        x = case.train.x
        halved = View.all(replace(case.train, x=x / 2 if x.is_floating_point() else x // 2))
        turned = View.all(replace(case.train, x=x.flip(0)))
        parts = {Split.FORGET: (train, 0, 12), Split.RETAIN: (train, 12, 60)}
        parts |= {Split.HELD_OUT: (test, 0, 15), Split.TEST: (test, 15, 35)}
        parts |= {Split.TEST_FORGET: (test, 35, 45), Split.AFFECTED: (test, 5, 25)}
        parts |= {Split.CORRECTED: (halved, 0, 12), Split.SHUFFLED: (turned, 0, 12)}
        parts |= {Split.AIMED: (test, 10, 30), Split.ELSEWHERE: (test, 25, 45)}
        parts |= {Split.CANDIDATES: (test, 0, 10)}
        views = {s: v.pick(torch.arange(a, b)) for s, (v, a, b) in parts.items()}
        for m in models.values():
            m.double()
        return SHAPES[shape](MetricInputs(case, models, views, self.device))


def _plain(seen: MetricInputs) -> MetricInputs:
    return seen


def _one_row(seen: MetricInputs) -> MetricInputs:
    return replace(seen, views={s: v.pick(torch.arange(1)) for s, v in seen.views.items()})


def _ties(seen: MetricInputs) -> MetricInputs:
    same = {s: v.pick(torch.zeros(len(v), dtype=torch.long)) for s, v in seen.views.items()}
    return replace(seen, views=same)


def _single_class(seen: MetricInputs) -> MetricInputs:
    views = {s: v.pick(_alike(v)) for s, v in seen.views.items()}
    return replace(seen, views=views)


def _alike(view: View) -> torch.Tensor:
    y = view.y.reshape(len(view), -1)
    return (y == y[:1]).all(1)


def _same_model(seen: MetricInputs) -> MetricInputs:
    return replace(seen, models=dict.fromkeys(seen.models, seen.models["original"]))


def _constant(seen: MetricInputs) -> MetricInputs:
    return _scaled(seen, 0.0)


def _extreme(seen: MetricInputs) -> MetricInputs:
    return _scaled(seen, 1e3)


def _scaled(seen: MetricInputs, factor: float) -> MetricInputs:
    with torch.no_grad():
        for model in seen.models.values():
            for p in model.parameters():
                p.mul_(factor)
    return seen


SHAPES: dict[str, Callable[[MetricInputs], MetricInputs]] = {
    "plain": _plain,
    "one_row": _one_row,
    "ties": _ties,
    "single_class": _single_class,
    "same_model": _same_model,
    "constant": _constant,
    "extreme": _extreme,
}
"""Kinds of evidence, by name: from the plain kind to a harder one."""


def check_metric(
    metric: Metric | str,
    *,
    tasks: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    device: str = "cpu",
) -> None:
    """Check that a metric keeps the contract; raise ``ContractError`` with what it does not keep.

    Args:
        metric: The metric, on a list or not, or the id of a listed one.
        tasks: On which of its tasks; all when None.
        only: Which checks of ``METRIC_CHECKS``; all when None.
        device: Where models run.
    """
    one = catalog.metrics()[metric] if isinstance(metric, str) else metric
    for task in sorted((one.tasks or set(catalog.tasks())) if tasks is None else tasks):
        for name in METRIC_CHECKS if only is None else only:
            METRIC_CHECKS[name](Measured(one, task, device))


def declaration_complete(m: Measured) -> None:
    """The declaration is complete and names what exists."""
    one = m.metric
    expect(one.low < one.high, f"{one.id}: range from {one.low} to {one.high}")
    inside = one.ideal is None or one.low <= one.ideal <= one.high
    expect(inside, f"{one.id}: ideal {one.ideal} is outside its range")
    unknown = set(one.tasks or ()) - set(catalog.tasks())
    expect(not unknown, f"{one.id}: serves {sorted(unknown)}, which is no task")
    expect(bool(one.doc), f"{one.id}: say what it is in a docstring")
    seen = m.seen().evidence()
    served = one.serves(seen) or (one.applies is not None and not one.applies(seen))
    expect(served, f"{one.id}: does not serve complete evidence")
    for name in sorted(set(catalog.tasks()) - (one.tasks or set(catalog.tasks()))):
        other = replace(m, task=name).seen().evidence()
        expect(not one.serves(other), f"{one.id}: serves {name} without declaring it")


def refuses_what_is_missing(m: Measured) -> None:
    """Without a model or split that it reads it is not served and gives no number."""
    one, seen = m.metric, m.seen()
    lacking = {f"model {w}": seen.only(one.reads - {w}, seen.views) for w in sorted(one.reads)}
    lacking |= {
        f"split {x}": seen.only(ModelRole, set(seen.views) - {x}) for x in sorted(one.splits)
    }
    for what, less in lacking.items():
        e = less.evidence()
        expect(not one.serves(e), f"{one.id}: is served without the {what}")
        try:
            value = one(e).value
        except (UnlearnkitError, KeyError):
            continue
        expect(math.isnan(value), f"{one.id}: gives {value} without the {what}")


def reads_what_it_declares(m: Measured) -> None:
    """Models and splits that it does not declare make no difference."""
    one, seen = m.metric, m.seen()
    bare = one(seen.only(one.reads, one.splits).evidence())
    _close(m, bare, one(seen.evidence()), "undeclared models or splits change it")


def leaves_all_alone(m: Measured) -> None:
    """Models, their modes, global generators and the evidence are as they were."""
    one, seen = m.metric, m.seen()
    e = seen.evidence()
    for i, model in enumerate(seen.models.values()):
        model.train(i % 2 == 0)
    before_outputs = _outputs(e)
    weights = {name: bits(model) for name, model in seen.models.items()}
    before = generators()
    one(e)
    expect(generators() == before, f"{one.id}: moves a global generator")
    for i, (name, model) in enumerate(seen.models.items()):
        expect(same_bits(weights[name], bits(model)), f"{one.id}: changes the {name} model")
        modes = {x.training for x in model.modules()}
        expect(modes == {i % 2 == 0}, f"{one.id}: changes the mode of the {name} model")
    expect(same_bits(before_outputs, _outputs(e)), f"{one.id}: changes the evidence")


def same_value_twice(m: Measured) -> None:
    """On equal evidence it gives the same value, whatever the global generators are."""
    e = m.seen().evidence()
    first = m.metric(e)
    disturb()
    _close(m, first, m.metric(e), "twice on one evidence, two values", exact=True)
    _close(m, first, m.metric(m.seen().evidence()), "equal evidence, two values", exact=True)


def any_batch_size(m: Measured) -> None:
    """How many rows run at once does not matter."""
    seen = m.seen()
    large, small = m.metric(seen.evidence()), m.metric(seen.evidence(batch_size=7))
    _close(m, large, small, "depends on the batch size")


def stored_outputs_suffice(m: Measured) -> None:
    """From stored outputs it gives the same, or says what they lack; or it needs models."""
    one, seen = m.metric, m.seen()
    e = seen.evidence()
    kept = {name: {s: _out(e, name, s) for s in seen.views} for name in seen.models}
    targets = {s: v.y for s, v in seen.views.items()}
    stored = Evidence.from_outputs(kept, targets, seen.case.task, Runtime())
    try:
        score = one(stored)
    except UnlearnkitError as error:
        expect(one.models, f"{one.id}: refuses stored outputs: {error}")
        return
    if math.isnan(score.value):
        expect(bool(score.note), f"{one.id}: nan from stored outputs without a note")
    else:
        _close(m, one(e), score, "stored outputs give another value")


def _in_range(shape: str) -> Callable[[Measured], None]:
    def check(m: Measured) -> None:
        """In the declared range, or not a number with a note; rows and interval fit the value."""
        one, score = m.metric, m.metric(m.seen(shape).evidence())
        if math.isnan(score.value):
            expect(bool(score.note), f"{one.id}: nan without a note ({shape})")
            return
        inside = one.low - 1e-9 <= score.value <= one.high + 1e-9
        expect(inside, f"{one.id}: {score.value} outside {one.low} to {one.high} ({shape})")
        if score.rows is not None:
            mean = score.rows.double().mean().item()
            fits = math.isclose(mean, score.value, rel_tol=1e-6, abs_tol=1e-9)
            expect(fits, f"{one.id}: {score.value}, but its rows' mean is {mean} ({shape})")
        if score.interval is not None:
            low, high = score.interval
            expect(low <= high, f"{one.id}: interval from {low} to {high} ({shape})")

    return check


def _close(m: Measured, a: Score, b: Score, sentence: str, *, exact: bool = False) -> None:
    both_nan = math.isnan(a.value) and math.isnan(b.value)
    near = math.isclose(a.value, b.value, rel_tol=1e-6, abs_tol=1e-9)
    same = a.value == b.value if exact else near
    expect(both_nan or same, f"{m.metric.id}: {sentence}: {a.value} and {b.value}")


def _out(e: Evidence, name: str, split: Split) -> torch.Tensor:
    who, _, k = name.partition("/")
    return e.outputs(ModelRole(who), split, int(k or 0))


def _outputs(e: Evidence) -> dict[str, torch.Tensor]:
    names = ["original", "unlearned", *(f"oracle/{k}" for k in range(e.oracles))]
    found = {f"{n} {s}": _out(e, n, s).clone() for n in names for s in e.views}
    return found | {f"targets {s}": e.targets(s).clone() for s in e.views}


METRIC_CHECKS: dict[str, Callable[[Measured], None]] = {
    f.__name__: f
    for f in (
        declaration_complete,
        refuses_what_is_missing,
        reads_what_it_declares,
        leaves_all_alone,
        same_value_twice,
        any_batch_size,
        stored_outputs_suffice,
    )
} | {f"in_range_{shape}": _in_range(shape) for shape in SHAPES}
"""Every check, by name. A metric keeps the contract if none raises."""
