"""What the layers inside a model say: read by forward hooks, of models that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.task import Task
from unlearnkit.train.data_free.input_optimization import freeze


@contextmanager
def capture_activations(
    model: nn.Module, names: Sequence[str], what: Literal["output", "input"] = "output"
) -> Iterator[Mapping[str, Tensor]]:
    """Give the outputs of some layers: those of the model's last run, with their gradients.

    A layer that runs several times in one pass leaves its last output.

    Args:
        model: Any module; its hooks are as they were afterwards.
        names: Layers, as ``named_modules`` calls them.
        what: Outputs, as the layers after it left them where these work in place; or inputs.

    Yields:
        By name, the output or input ``(B, ...)``; filled anew each time the model runs.

    Raises:
        UnknownNameError: If there is no such layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if name}
    unknown = next((name for name in names if name not in layers), None)
    if unknown is not None:
        raise UnknownNameError("layer", unknown, layers)
    found: dict[str, Tensor] = {}
    handles = [_tap(layers[name], name, found, what) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def stage_ends(model: nn.Module, task: Task, batch: Batch) -> tuple[str, ...]:
    """Return the last layer of each stage of a model; the stage of its answer is left out.

    A stage is what lies between two changes of size: of height and width where there are images
    ``(B, C, H, W)``, else of the number of tokens ``(B, T, D)``, else of the width ``(B, D)``.
    Images of a single position are no stage: nothing on them can be compared by place.

    Args:
        model: Any module, run once in eval mode, without gradients.
        task: Runs it.
        batch: Inputs of the shape that the model takes.

    Returns:
        Names, in the order of the pass; none where the model has one layer.
    """
    layers = tuple(name for name, _ in model.named_modules() if name)
    with freeze(model), torch.no_grad(), capture_activations(model, layers) as found:
        answer = task.outputs(model, batch)
    rows = {n: out for n, out in found.items() if out.ndim >= 2 and len(out) == len(batch)}
    images = {place_shape(o): n for n, o in rows.items() if o.ndim > 3 and o[0, 0].numel() > 1}
    tokens = {place_shape(o): n for n, o in rows.items() if o.ndim == 3}
    vectors = {place_shape(o): n for n, o in rows.items() if o.ndim == 2}
    vectors.pop(place_shape(answer), None)
    return tuple((images or tokens or vectors).values())


def place_shape(out: Tensor) -> tuple[int, ...]:
    """Return over which places a layer's output ``(B, ...)`` says something: what is no channel."""
    if out.ndim == 2:
        return (out.shape[1],)
    return tuple(out.shape[1:-1]) if out.ndim == 3 else tuple(out.shape[2:])


def attention(out: Tensor) -> Tensor:
    """Return where a layer looks: its mean square over channels, scaled to length 1 a row.

    Zagoruyko and Komodakis, ICLR 2017, arXiv:1612.03928, with squares.

    Args:
        out: A layer's output: channels are the second axis of images ``(B, C, H, W)`` and the last
            of tokens ``(B, T, D)``; a vector ``(B, D)`` has one channel and D places.

    Returns:
        The map ``(B, places)``, float32 at least; zero where the output is.
    """
    square = out.float().square() if out.dtype != torch.float64 else out.square()
    if out.ndim == 3:
        square = square.mean(-1)
    elif out.ndim > 3:
        square = square.mean(1)
    return functional.normalize(square.flatten(1), dim=1)


def attention_gap(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return how differently two layers look, summed over rows, a place and a row.

    Args:
        ours: A map ``(B, places)``.
        theirs: Another.

    Returns:
        ``1 / (B * places) * sum_b |ours_b - theirs_b|^2``, a scalar.
    """
    return (ours - theirs).square().mean()


def match_layers(
    teacher: nn.Module, student: nn.Module, names: Sequence[str] | None, task: Task, batch: Batch
) -> dict[str, str]:
    """Return which layer of a teacher goes with which of a student.

    Args:
        teacher: One model.
        student: Another, maybe of another architecture.
        names: Layers that both have; found by the ends of stages when None. Stages of the two go
            together where they have the same places.
        task: Runs the models.
        batch: Inputs that they take.

    Returns:
        By the teacher's layer, the student's.

    Raises:
        InputError: If layers of one name differ in places.
    """
    both = []
    for model in (teacher, student):
        chosen = tuple(names) if names is not None else stage_ends(model, task, batch)
        with freeze(model), torch.no_grad(), capture_activations(model, chosen) as found:
            task.outputs(model, batch)
        both.append({name: place_shape(found[name]) for name in chosen if name in found})
    mine, theirs = both
    if names is None:
        ends = {shape: name for name, shape in theirs.items()}
        return {name: ends[shape] for name, shape in mine.items() if shape in ends}
    for name, shape in mine.items():
        if theirs.get(name) != shape:
            raise InputError(
                f"layer {name}: has places {shape} in the teacher, {theirs.get(name)} in the"
                " student; name layers of one size, or none to have them found"
            )
    return {name: name for name in mine}


def _tap(
    layer: nn.Module, name: str, found: dict[str, Tensor], what: str
) -> torch.utils.hooks.RemovableHandle:
    def keep(_: nn.Module, given: tuple[object, ...], out: object) -> None:
        said = given if what == "input" else out
        first = said[0] if isinstance(said, tuple | list) and said else said
        if isinstance(first, Tensor):
            found.pop(name, None)
            found[name] = first

    return layer.register_forward_hook(keep)
