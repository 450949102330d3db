"""Features, losses and input gradients of rows, from a fixed model."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.inference import predict
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task


def row_losses(model: nn.Module, view: View, task: Task, rt: Runtime) -> Tensor:
    """Return the task's loss of each row ``(n,)``, in eval mode, on the CPU."""
    out = predict(model, view, task, rt)
    return task.losses(out, Batch.of_targets(view.y, view.rows))


def mean_error(model: nn.Module, view: View, task: Task, rt: Runtime) -> float:
    """Return the task's mean error over rows, in eval mode; of classes the share of wrong ones."""
    out = predict(model, view, task, rt)
    batch = Batch.of_targets(view.y, view.rows)
    return task.errors(out, batch).double().mean().item()


def input_gradients(
    model: nn.Module, batch: Batch, task: Task, step: Tensor | None = None
) -> Tensor | None:
    """Return the gradient of each row's loss by its input ``(B, ...)``, plus ``step`` if given.

    The model must be in eval mode, so that rows are independent. None where the inputs are not one
    real tensor.
    """
    if not isinstance(batch.x, Tensor) or not batch.x.is_floating_point():
        return None
    x = (batch.x.detach() if step is None else batch.x.detach() + step).clone().requires_grad_()
    losses = task.losses(task.outputs(model, replace(batch, x=x)), batch)
    (slope,) = torch.autograd.grad(losses.sum(), x)
    return slope


def teacher_outputs(
    teacher: nn.Module, view: View, task: Task, rt: Runtime, recipe: Recipe
) -> Callable[[Batch], Tensor]:
    """Return the function from a batch of a view's rows to a fixed model's outputs ``(B, K)``.

    Outputs are computed once a row, here; where the recipe augments inputs, at each batch, on the
    augmented inputs. They carry no gradient.
    """
    if recipe.augment != "none":

        def ask(batch: Batch) -> Tensor:
            with torch.no_grad():
                return task.outputs(teacher, batch)

        return ask
    return lookup_by_row(view, predict(teacher, view, task, rt), rt)


def lookup_by_row(view: View, values: Tensor, rt: Runtime) -> Callable[[Batch], Tensor]:
    """Return the function from a batch to its rows' entries of ``values (n, ...)`` of a view."""
    position = torch.full((len(view.data),), len(view), dtype=torch.long)
    position[view.rows] = torch.arange(len(view))
    kept = values.to(rt.device)

    def recall(batch: Batch) -> Tensor:
        return kept[position[batch.row].to(kept.device)]

    return recall


def last_layer_name(model: nn.Module) -> str:
    """Return the name of the module that owns the last parameter; empty for the model itself."""
    names = [name for name, _ in model.named_parameters()]
    return names[-1].rpartition(".")[0] if names else ""


def last_layer(model: nn.Module) -> nn.Module | None:
    """Return the module that owns the last parameter; None where that is the model itself."""
    owner = last_layer_name(model)
    return model.get_submodule(owner) if owner else None


def features(
    model: nn.Module, view: View, task: Task, rt: Runtime, *, head: nn.Module | None = None
) -> Tensor | None:
    """Return what the last layer of a model is given for each row ``(n, D)``, in eval mode.

    Args:
        model: Not touched; a hook is on its last layer while it runs.
        view: The n rows.
        task: Runs the model.
        rt: Where to run.
        head: Another layer of the model, to be taken for the last.

    Returns:
        Float64, on the CPU; None where the last layer is the model itself, or does not get one
        tensor with one entry a row.
    """
    head = head or last_layer(model)
    if head is None:
        return None
    seen: list[Tensor] = []

    def listen(_: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            seen.append(args[0].detach().double().cpu())

    hook = head.register_forward_pre_hook(listen)
    try:
        predict(model, view, task, rt)
    finally:
        hook.remove()
    if sum(map(len, seen)) != len(view):
        return None
    return torch.cat(seen).flatten(1).clone()
