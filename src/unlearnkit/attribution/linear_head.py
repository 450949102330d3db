"""Linear-head attribution: the last layer is refitted without the rows, to convergence."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.held_out_models import held_out_quality
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import Batch, View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.features import features, last_layer
from unlearnkit.train.output_matching import centre_outputs

STEPS = 500
"""Most steps of the fit (L-BFGS)."""

FLAT = 1e-6
"""Largest entry of the gradient at the end of a fit, as a share of that at the start."""


class LinearHeadAttribution(FrozenModel):
    """Exact for a linear last layer on features that do not move."""

    kind: Literal["linear_head"] = "linear_head"
    """From the last layer alone, refitted with and without the forget set."""

    decay: float = Field(1e-3, ge=0, allow_inf_nan=False)
    """L2 penalty of the fit, ``decay / 2 * ||weights||^2`` added to the mean loss, where the recipe
    has no weight decay. 0 has no minimum where classes can be separated."""

    checked_on: int = Field(0, ge=0)
    """Models trained without random rows that measure the quality; 0 trains none."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the outputs of the layer fitted without the forget set, minus those with it.

        Args:
            subject: The model; features are what its last layer is given.
            read: The N rows.
            rt: Where to run the model.
            cache: Where held-out models are kept.

        Returns:
            The shift. A fit that does not converge is an ``InputError``, a model without a linear
            last layer an ``UnsupportedError``.
        """
        known, task = subject.train, subject.task
        head = _head(subject.model)
        mine = _features(subject.model, head, known, task, rt)
        theirs = mine if read is known else _features(subject.model, head, read, task, rt)
        own = subject.training.weight_decay if isinstance(subject.training, Recipe) else 0.0
        decay = own or self.decay
        zero = torch.zeros(head.out_features, head.in_features + 1, dtype=torch.float64)
        whole = fit_head(mine, known, task, decay, zero)

        def shift(forget: Tensor) -> Tensor:
            stay = ~forget
            some = fit_head(mine[stay], known.pick(stay), task, decay, whole)
            return centre_outputs((_with_one(theirs) @ (some - whole).mT).float(), task)

        held = held_out_quality(subject, shift, read, self.checked_on, rt, cache)
        return PredictedShift(
            shift(subject.forget),
            held.quality,
            f"linear head (decay {decay:g})",
            rows=known.key(),
            forget=subject.request_digest(),
            read=read.key(),
            model=model_digest(subject.model),
            work=held.work,
        )


def fit_head(inputs: Tensor, rows: View, task: Task, decay: float, start: Tensor) -> Tensor:
    """Return the linear layer that minimises the mean loss of some rows, and an L2 penalty.

    Args:
        inputs: Features of the rows ``(n, D)``.
        rows: Their targets.
        task: Gives the losses.
        decay: Of ``decay / 2 * ||weights and biases||^2``, as the recipe's.
        start: Where to begin ``(K, D + 1)``.

    Returns:
        Weights and, last, biases: float64 ``(K, D + 1)``.

    Raises:
        InputError: If the fit does not converge.
    """
    x = _with_one(inputs.double())
    targets = rows.y.double() if rows.y.is_floating_point() else rows.y
    batch = Batch.of_targets(targets, rows.rows)
    w = start.clone().requires_grad_()

    def objective() -> Tensor:
        loss: Tensor = task.losses(x @ w.mT, batch).mean() + decay / 2 * w.square().sum()
        return loss

    def slope() -> Tensor:
        return torch.autograd.grad(objective(), w)[0]

    first = float(slope().abs().max())
    fit = torch.optim.LBFGS(
        [w],
        max_iter=STEPS,
        history_size=50,
        tolerance_grad=FLAT * max(first, 1e-3),
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value = objective()
        w.grad = torch.autograd.grad(value, w)[0]
        return value.detach()

    fit.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    left = float(slope().abs().max())
    if not left <= 100 * FLAT * max(first, 1e-3):
        raise InputError(
            f"linear head: the fit has not converged (gradient {left:.2g}); give a larger decay"
        )
    return w.detach()


def _with_one(x: Tensor) -> Tensor:
    return functional.pad(x.double(), (0, 1), value=1.0)


def _head(model: nn.Module) -> nn.Linear:
    head = model if isinstance(model, nn.Linear) else last_layer(model)
    if not isinstance(head, nn.Linear):
        raise UnsupportedError(
            f"linear head: the last layer is a {type(head).__name__}; a Linear is needed; use"
            " another attribution, such as ekfac"
        )
    return head


def _features(model: nn.Module, head: nn.Linear, view: View, task: Task, rt: Runtime) -> Tensor:
    found = features(model, view, task, rt, head=head)
    if found is None or found.shape[1] != head.in_features:
        raise UnsupportedError(
            "linear head: the last layer does not get one vector a row; use another attribution,"
            " such as ekfac"
        )
    return found
