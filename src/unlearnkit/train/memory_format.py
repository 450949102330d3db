"""How convolutional networks lie in memory while they run: channels last where they gain by it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import InputError
from unlearnkit.core.module_state import eval_mode, tensors
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.rng_guard import seeded_global_rngs


def to_channels_last_if_faster(
    model: nn.Module, batch: Batch, task: Task, rt: Runtime
) -> nn.Module:
    """Return a copy of a model whose weights lie channels last, where that makes it faster.

    On a CPU convolutions, their normalisation and pooling then take 0.68 to 0.96 of the time
    (``python -m benchmarks images``). A network that takes its activations apart by
    ``view`` does not bear it, and the owner of one that lies otherwise has chosen so; neither is
    changed, nor is any model on other devices or in other precisions: nothing was measured there.
    ``Runtime(channels_last="off")`` changes none.

    Args:
        model: Read only.
        batch: Some rows, on which the copy has to answer as the model does.
        task: Runs the model.
        rt: Where it runs; nothing is metered.

    Returns:
        The copy, or the model itself.
    """
    if not _gains(model, batch, rt):
        return model
    twin = channels_last(copy.deepcopy(model))
    few = replace(batch, cost=None)
    with (
        seeded_global_rngs(rt, "layout"),
        torch.inference_mode(),
        eval_mode(model),
        eval_mode(twin),
    ):
        before = task.outputs(model, few)
        try:
            after = task.outputs(twin, few)
        except InputError:
            return model
    return twin if torch.allclose(before, after, rtol=1e-3, atol=1e-4) else model


@contextmanager
def quick(model: nn.Module, batch: Batch, task: Task, rt: Runtime) -> Iterator[None]:
    """Lay a model out as ``to_channels_last_if_faster`` does, in place, and back on leaving."""
    given = get_strides(model)
    if to_channels_last_if_faster(model, batch, task, rt) is not model:
        channels_last(model)
    try:
        yield
    finally:
        set_strides(model, given)


def channels_last(model: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out channels last, in place; no value changes."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    return model


def get_strides(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return how every parameter and buffer lies in memory, by name."""
    return {name: t.stride() for name, t in tensors(model).items()}


def set_strides(model: nn.Module, wanted: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Lay tensors out in memory as given, in place.

    Args:
        model: Changed in place; values and ties stay.
        wanted: Strides by name; a tensor that is not named stays as it is, and so does one whose
            elements would share memory.

    Returns:
        The same model.
    """
    for name, t in tensors(model).items():
        steps = wanted.get(name, t.stride())
        if t.stride() != steps and 0 not in steps:
            t.data = torch.empty_strided(t.shape, steps, dtype=t.dtype, device=t.device).copy_(t)
    return model


def _gains(model: nn.Module, batch: Batch, rt: Runtime) -> bool:
    if rt.channels_last == "off" or rt.device.type != "cpu" or rt.precision != "fp32":
        return False
    if not isinstance(batch.x, Tensor) or batch.x.ndim != 4:
        return False
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return any(m.in_channels > 1 for m in layers) and all(m.weight.is_contiguous() for m in layers)
