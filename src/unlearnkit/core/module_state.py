"""State of a module: tensors, ties, types, memory layout, hooks, modes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer, a tied one under each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@contextmanager
def preserve_modes(model: nn.Module) -> Iterator[None]:
    """Give every module its train or eval flag back at the end."""
    flags = [(m, m.training) for m in model.modules()]
    try:
        yield
    finally:
        for m, was in flags:
            m.training = was


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; restore all flags at the end."""
    with preserve_modes(model):
        model.eval()
        yield


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a model on a device: itself where it is there already, else a copy."""
    here = [*model.parameters(), *model.buffers()]
    if all(_same_device(t.device, device) for t in here):
        return model
    return copy.deepcopy(model).to(device)  # noqa: TID251  # no method calls it; the copy is for reading


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Return whether two devices are one; without an index it is the one that `.to` would pick."""
    if one.type != other.type:
        return False
    return one.type == "cpu" or other.index is None or one.index == other.index


def upcast_half_precision(model: nn.Module) -> nn.Module:
    """Change half-precision weights to float32 in place: small steps would be rounded away."""
    half = {torch.float16, torch.bfloat16}
    return cast(model, {n: torch.float32 for n, t in tensors(model).items() if t.dtype in half})


def cast(model: nn.Module, types: Mapping[str, torch.dtype]) -> nn.Module:
    """Change the types of the named parameters and buffers in place; ties stay."""
    for name, t in tensors(model).items():
        if types.get(name, t.dtype) != t.dtype:
            t.data = t.data.to(types[name])
    return model


def structural_difference(ours: nn.Module, theirs: nn.Module) -> str:
    """Return the first difference of ours from theirs other than values, types and modes.

    Layers are compared by name and class, tensors by name, shape and tie. A hook counts only where
    ours has more of them. Empty if nothing differs.
    """
    mine, want = _form(ours), _form(theirs)
    for key in {**want, **mine}:
        if key not in mine or key not in want:
            return f"{key} is {'new' if key in mine else 'missing'}"
        if mine[key] != want[key]:
            return f"{key} is {mine[key]}, was {want[key]}"
    hooks, were = _hooks(ours), _hooks(theirs)
    more = next((name for name, count in hooks.items() if count > were.get(name, 0)), None)
    return "" if more is None else f"{more or 'the model'} has hooks left on it"


def tensors_equal(ours: Tensor, theirs: Tensor) -> bool:
    """Return whether two tensors hold the same values in the type of the second, on any device."""
    return torch.equal(ours.detach().to(theirs.dtype).cpu(), theirs.detach().cpu())


def all_finite(t: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity; makes no copy of real numbers."""
    if t.is_complex() or not t.numel():
        return bool(torch.isfinite(t).all())
    low, high = t.detach().aminmax()  # NaN if there is any
    return math.isfinite(low.item()) and math.isfinite(high.item())


def largest_magnitude(t: Tensor) -> float:
    """Return the largest value without its sign, 0 of none; NaN if there is any; makes no copy."""
    if not t.numel():
        return 0.0
    low, high = (t.abs() if t.is_complex() else t.detach()).aminmax()
    return math.nan if math.isnan(low.item()) else max(-low.item(), high.item())


def storage_id(t: Tensor) -> tuple[str, int]:
    """Return where a tensor's memory lies: equal for tensors that share it."""
    return str(t.device), t.untyped_storage().data_ptr()


def _form(model: nn.Module) -> dict[str, str]:
    form = {f"layer {name}": type(m).__qualname__ for name, m in model.named_modules() if name}
    first: dict[int, str] = {}
    for name, t in model.state_dict(keep_vars=True).items():
        if isinstance(t, Tensor):
            tied = first.setdefault(id(t), name)
            form[name] = f"of shape {tuple(t.shape)}" + (f", tied to {tied}" * (tied != name))
    return form


def _hooks(model: nn.Module) -> dict[str, int]:
    of_layers = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_tensors = ("_backward_hooks", "_post_accumulate_grad_hooks")
    counts = {name: _count(m, of_layers) for name, m in model.named_modules()}
    return counts | {name: _count(p, of_tensors) for name, p in model.named_parameters()}


def _count(owner: object, kinds: tuple[str, ...]) -> int:
    return sum(len(getattr(owner, kind, None) or ()) for kind in kinds)
