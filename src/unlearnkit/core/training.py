"""Inputs of a training: the content address of the model that it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from unlearnkit.core.content import architecture_digest, content_digest
from unlearnkit.core.digest import NUMERICS, model_digest
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.train_function import TrainFunction

if TYPE_CHECKING:
    from torch import nn

    from unlearnkit.core.runtime import Runtime
    from unlearnkit.core.task import Task

KEPT_AS = {"fp32": "fp32", "bf16": "bf16 with weights cast at each use"}
"""How a precision stands in content addresses: models of earlier versions in bf16 were wrong."""

Training = Recipe | TrainFunction
"""How models are trained from scratch."""


def training_key(
    kind: str,
    model: nn.Module,
    rows: str,
    task: Task,
    how: Training,
    rt: Runtime,
) -> dict[str, Any]:
    """Return the content address of what an untrained model becomes: all inputs of its training.

    Args:
        kind: What the model is, such as ``oracle``.
        model: Before training.
        rows: The content address of its rows, in their order.
        task: Gives outputs and losses; its code and attributes are inputs too.
        how: How it is trained: a recipe, or the user's own loop.
        rt: Device, precision and seed.

    Returns:
        The key, JSON-able.
    """
    if isinstance(how, Recipe):
        how.check_cached()
    return {
        "kind": kind,
        "numerics": NUMERICS,
        "recipe": how.model_dump() if isinstance(how, Recipe) else how.spec(),
        "rule": content_digest(how)
        if isinstance(how, Recipe) and type(how) is not Recipe
        else None,
        "init": model_digest(model),
        "architecture": architecture_digest(model),
        "rows": rows,
        "task": dict(task.spec()),
        "loss": content_digest(task),
        "device": rt.device.type,
        "precision": KEPT_AS[rt.precision],
        "products": torch.get_float32_matmul_precision(),
        "seed": rt.seed,
    }
