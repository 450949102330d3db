"""Drift: how far the published model is from its last retraining."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.early_stopping import alike
from unlearnkit.train.features import mean_error

if TYPE_CHECKING:
    from unlearnkit.ledger.register import Register


class Drift(FrozenModel):
    """What happened to a model since it was last trained from scratch.

    Errors are means over rows, in the task's unit: of a classifier, the share of wrong classes.
    """

    since: str
    """``original``, or the batch of the last retraining."""

    batches: int
    """Batches that other methods have answered since."""

    rows: int
    """Training rows removed since."""

    rows_share: float
    """The same, as a share of the training rows of that model."""

    cost: float
    """Cost of all methods tried since, in retrainings; audits are not counted, nor training loops
    of the user's own, whose rows are not counted."""

    distance: float
    """Sum of the batches' changes of the weights, each relative to the weights' norm. By the
    triangle inequality about the most that the model can be away from the last retraining."""

    retain_error: float | None
    """On the training rows that stay; None where it is not finite, or rows have no targets."""

    test_error: float | None
    """On the test rows of classes that are left; None where there are none."""

    retain_error_at_start: float | None
    """The retain error of the model of ``since``, on its training rows."""

    test_error_at_start: float | None
    """The test error of the model of ``since``."""

    @property
    def test_error_rise(self) -> float | None:
        """Return how much the test error rose since the last retraining."""
        if self.test_error is None or self.test_error_at_start is None:
            return None
        return self.test_error - self.test_error_at_start

    def words(self) -> str:
        """Return the drift in one line."""
        rise = self.test_error_rise
        test = "" if rise is None else f"; test error {rise:+.4f}"
        return (
            f"since {self.since}: {self.batches} batches, {self.rows} rows"
            f" ({self.rows_share:.2%}){test}; distance {self.distance:.3g}; cost {self.cost:.3g}"
        )

    @classmethod
    def zero(cls, since: str, retain_error: float | None, test_error: float | None) -> Drift:
        """Return the drift of a model that was just trained from scratch."""
        return cls(
            since=since, batches=0, rows=0, rows_share=0.0, cost=0.0, distance=0.0,
            retain_error=retain_error, retain_error_at_start=retain_error,
            test_error=test_error, test_error_at_start=test_error,
        )  # fmt: skip


def published_drift(register: Register) -> Drift | None:
    """Return the drift of the published model; None before the first batch is done."""
    done = register.latest("certificate")
    if done is None:
        return None
    found = register.entry(int(done.body["attempt"])).body.get("drift")
    return None if found is None else Drift.model_validate(found)


def next_drift(
    before: Drift | None,
    models: tuple[nn.Module, nn.Module],
    case: Case,
    request: ForgetRequest,
    rt: Runtime,
    *,
    cost: float,
    retrained: str = "",
) -> Drift:
    """Return the drift of a model that a method made of the published one.

    Args:
        before: That of the published model; None where nothing was measured yet.
        models: The published model, and what the method made of it.
        case: With the rows of the batch.
        request: The batch.
        rt: Where models are read.
        cost: Of all methods of the batch so far, in retrainings.
        retrained: The batch, where the model holds nothing of rows that are gone; else empty.

    Returns:
        The drift.
    """
    assert case.train is not None
    parts = case.partition(request)
    assert parts.forget is not None
    assert parts.retain is not None
    retain, test = _errors(models[1], parts.retain, case, rt)
    if retrained:
        return Drift.zero(retrained, retain, test)
    if before is None:
        before = Drift.zero("original", *_errors(models[0], View.all(case.train), case, rt))
    rows = before.rows + len(parts.forget)
    return before.model_copy(
        update={
            "batches": before.batches + 1,
            "rows": rows,
            "rows_share": rows / (before.rows + len(case.train)),
            "cost": before.cost + cost,
            "distance": before.distance + _step(*models),
            "retain_error": retain,
            "test_error": test,
        }
    )


def _errors(
    model: nn.Module, retain: View, case: Case, rt: Runtime
) -> tuple[float | None, float | None]:
    test = None if case.test is None or not len(case.test) else View.all(case.test)
    if test is not None and test.labelled and retain.labelled:
        test = alike(test, retain)
    return _error(model, retain, case, rt), _error(model, test, case, rt)


def _error(model: nn.Module, view: View | None, case: Case, rt: Runtime) -> float | None:
    """Return the mean error; None without labelled rows, or where it is not finite."""
    if view is None or not view.labelled:
        return None
    found = mean_error(model, view, case.task, rt)
    return found if math.isfinite(found) else None


def _step(before: nn.Module, after: nn.Module) -> float:
    """Return the Euclidean distance of the weights, relative to the norm of those before."""
    old = {name: p.detach().double().cpu() for name, p in before.named_parameters()}
    new = {name: p.detach().double().cpu() for name, p in after.named_parameters()}
    apart = math.fsum(float((old[n] - p).square().sum()) for n, p in new.items())
    size = math.fsum(float(p.square().sum()) for p in old.values())
    return math.sqrt(apart / size) if size else 0.0
