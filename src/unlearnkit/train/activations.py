"""Activations of layers, captured by forward hooks, and attention maps."""

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
    """Give the outputs (or inputs) ``(B, ...)`` of some layers by name, at each run of a model.

    A layer that runs several times in one pass leaves its last output; gradients can go through.
    Hooks are removed at the end. ``names`` are those of ``named_modules``.

    Yields:
        The tensors by name; filled anew each time the model runs.

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
    """Return the last layer of each stage of a model, in the order of the pass.

    A stage lies between two changes of size: of height and width for images ``(B, C, H, W)``, else
    of the number of tokens ``(B, T, D)``, else of the width ``(B, D)``. The output's own stage and
    images of a single position are left out. The model runs once, in eval mode, without gradients.
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
    """Return the attention map ``(B, places)`` of a layer's output: mean square over channels.

    Scaled to length 1 a row (Zagoruyko and Komodakis, ICLR 2017, arXiv:1612.03928, with squares).
    Channels are the second axis of images ``(B, C, H, W)`` and the last of tokens ``(B, T, D)``; a
    vector ``(B, D)`` has one channel and D places. Float32 at least; zero where the output is.
    """
    square = out.float().square() if out.dtype != torch.float64 else out.square()
    if out.ndim == 3:
        square = square.mean(-1)
    elif out.ndim > 3:
        square = square.mean(1)
    return functional.normalize(square.flatten(1), dim=1)


def attention_gap(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return ``1 / (B * places) * sum_b |ours_b - theirs_b|^2`` of maps ``(B, places)``."""
    return (ours - theirs).square().mean()


def match_layers(
    teacher: nn.Module, student: nn.Module, names: Sequence[str] | None, task: Task, batch: Batch
) -> dict[str, str]:
    """Return the layers of a student by the layers of a teacher that they are compared with.

    ``names`` are layers that both have. When None, the ends of stages that have the same places are
    paired; the student may be of another architecture.

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
