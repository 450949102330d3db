"""Directional derivative of outputs: how they move when weights move a little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.core.data import View
from unlearnkit.core.inference import inference_batch_size
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.linalg.bound_model import BoundModel
from unlearnkit.linalg.curvature_products import parameters_of


def directional_derivative(
    model: nn.Module, view: View, task: Task, rt: Runtime, step: Mapping[str, Tensor]
) -> Tensor:
    """Return ``J v``: the derivative of a model's outputs along a step of its weights.

    By reverse mode alone: ``J v`` is the gradient of ``u^T J v`` in u.

    Args:
        model: Read only, in eval mode.
        view: The n rows.
        task: Supplies outputs.
        rt: Device, cost: two passes back.
        step: One tensor per parameter, by name; those that are not named stay where they are.

    Returns:
        ``(n, K)``, on the CPU. A step that fits no parameters of the model is an ``InputError``.
    """
    here = parameters_of(model, step)
    along = {n: step[n].detach().to(p) for n, p in here.items()}
    parts = []
    size = inference_batch_size(view, rt)
    with eval_mode(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for batch in view.batches(size, rt):

            def outputs(params: dict[str, Tensor]) -> Tensor:
                return task.outputs(BoundModel(model, params), batch)  # noqa: B023  # called here

            found: Any = vjp(outputs, here)
            out, pull = found[0], found[1]
            twice: Any = vjp(lambda u: pull(u)[0], torch.zeros_like(out))  # noqa: B023  # called here
            parts.append(twice[1](along)[0].detach().cpu())
            rt.cost.pending = 0
            rt.cost.backward += 2 * len(batch)
    return torch.cat(parts)
