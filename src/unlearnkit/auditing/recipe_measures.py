"""Recipe measures: what the recipe check compares, of one model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.inference import inference_batch_size, map_rows, predict
from unlearnkit.core.module_state import eval_mode, on_device
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

GRADIENT_ROWS = 2000
"""Most retain rows behind the loss gradient; a sample is drawn beyond."""


@dataclass(frozen=True)
class RecipeQuantity:
    """A quantity that is compared between models."""

    words: str
    """What it is, in words."""

    least: float
    """Smallest deviation over models to believe, as a share of the quantity. It keeps rare outliers
    of saturated models, and differences of no weight, from counting."""

    logarithm: bool = True
    """Whether its logarithm is tested: the ratio of two models is then what counts."""


TESTED: Mapping[str, RecipeQuantity] = MappingProxyType(
    {
        "loss_retain": RecipeQuantity("mean loss, retain set", 0.005),
        "loss_test": RecipeQuantity("mean loss, test set", 0.005),
        "margin_mean": RecipeQuantity("mean margin, retain set", 0.002, logarithm=False),
        "margin_deviation": RecipeQuantity("deviation of margins, retain set", 0.005),
        "output_deviation": RecipeQuantity("deviation of outputs, retain set", 0.005),
        "weight_norm": RecipeQuantity("norm of the weights", 0.001),
        "gradient_norm": RecipeQuantity("norm of the loss gradient, retain set", 0.05),
    }
)
"""What is tested, by name."""

ERROR, ACCURACY = "mean error", "accuracy"

SHOWN: Mapping[str, str] = MappingProxyType(
    {"error_retain": f"{ERROR}, retain set", "error_test": f"{ERROR}, test set"}
)
"""What is shown as well: accuracies are steps, so their spread over a few models is no law."""


def recipe_measures(
    model: nn.Module,
    retain: View,
    test: View | None,
    task: Task,
    rt: Runtime,
    moving: Collection[str],
) -> dict[str, float]:
    """Return what is compared of a model, by the names of ``TESTED`` and ``SHOWN``.

    Args:
        model: Read only, in eval mode.
        retain: Rows that it was trained on.
        test: Rows that it was not trained on; without them what needs them is left out.
        task: Gives losses, margins (in units of the task) and errors.
        rt: Where to run; counts the cost.
        moving: Names of the parameters that training moves, whatever flags the model has.

    Returns:
        One number each, not finite where it is undefined; ``rate``, 1 where all errors are 0 or 1.
    """
    model = copy.deepcopy(on_device(model, rt.device))  # noqa: TID251  # flags of the copy change
    for name, p in model.named_parameters():
        p.requires_grad_(name in moving)
    found: dict[str, float] = {"rate": 1.0}
    for name, view in (("retain", retain), ("test", test)):
        if view is None or not len(view) or not view.labelled:
            continue
        out = predict(model, view, task, rt).double()
        errors = _rows(task.errors, out, view)
        found[f"loss_{name}"] = float(_rows(task.losses, out, view).mean())
        found[f"error_{name}"] = float(errors.mean())
        found["rate"] *= float(bool(((errors == 0) | (errors == 1)).all()))
        if name == "retain":
            margins = _rows(task.margin, out, view)
            found["margin_mean"] = float(margins.mean())
            found["margin_deviation"] = float(margins.std(correction=0))
            columns = out.flatten(1)
            found["output_deviation"] = float((columns - columns.mean(0)).square().mean().sqrt())
    weights = [p.detach().cpu().double() for p in model.parameters() if p.requires_grad]
    found["weight_norm"] = math.sqrt(math.fsum(float(t.square().sum()) for t in weights))
    few = retain.sample(GRADIENT_ROWS, Runtime(), "recipe check/gradient")
    found["gradient_norm"] = _gradient_norm(model, few, task, rt)
    return found


def _rows(fn: Callable[[Tensor, Batch], Tensor], out: Tensor, view: View) -> Tensor:
    """Return a task's answer for each row of outputs ``(n, K)``: ``(n,)``, float64."""
    return map_rows(
        lambda o, y, r: fn(o, Batch.of_targets(y, r)), out, view.y, torch.arange(len(out))
    )


def _gradient_norm(model: nn.Module, view: View, task: Task, rt: Runtime) -> float:
    """Return the norm of the gradient of the mean loss, over parameters that may move."""
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        return math.nan
    total = [torch.zeros_like(p, dtype=torch.float64, device="cpu") for p in params]
    with eval_mode(model), torch.enable_grad():
        for batch in view.batches(inference_batch_size(view, rt), rt):
            loss = task.losses(task.outputs(model, batch), batch).sum() / len(view)
            if not loss.requires_grad:
                return math.nan
            for place, grad in zip(
                total, torch.autograd.grad(loss, params, allow_unused=True), strict=True
            ):
                if grad is not None:
                    place.add_(grad.detach().cpu())
    rt.cost.count_backward()
    return math.sqrt(math.fsum(float(t.square().sum()) for t in total))
