"""Checks of a result: finite, of the right form, original unchanged."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from unlearnkit.core.errors import DivergedError, UnlearnkitError
from unlearnkit.core.module_state import (
    all_finite,
    cast,
    storage_id,
    structural_difference,
    tensors,
    tensors_equal,
)
from unlearnkit.train.memory_format import get_strides, set_strides


def check_untouched(original: nn.Module, model: nn.Module, who: str) -> None:
    """Refuse a run that changed the original.

    Raises:
        UnlearnkitError: Naming what changed.
    """
    odd = structural_difference(original, model)
    if odd:
        raise UnlearnkitError(f"{who}: changed the original, which is read only: {odd}")
    theirs = tensors(model)
    for name, ours in tensors(original).items():
        if name in theirs and not tensors_equal(ours, theirs[name]):
            raise UnlearnkitError(f"{who}: changed {name} of the original, which is read only")


def check_form(out: nn.Module, like: nn.Module, given: Iterable[nn.Module], who: str) -> None:
    """Refuse a result of another architecture, or one that shares memory with ``given`` models.

    Raises:
        DivergedError: If it is no model, or another one than ``like``.
        UnlearnkitError: If it shares memory.
    """
    if not isinstance(out, nn.Module):
        raise DivergedError(f"{who}: returned {type(out).__name__}, not a model")
    odd = structural_difference(out, like)
    if odd:
        raise DivergedError(f"{who}: returned another architecture: {odd}")
    taken = {storage_id(p) for m in given for p in m.parameters() if p.numel()}
    trained = {name for name, p in like.named_parameters() if p.requires_grad}
    for name, p in out.named_parameters():
        if name in trained and storage_id(p) in taken:
            raise UnlearnkitError(f"{who}: returned {name} in the memory of the model it was given")


def check_values(out: nn.Module, model: nn.Module, who: str) -> None:
    """Refuse values that are not finite, and frozen parameters that moved.

    Raises:
        DivergedError: Naming the tensor.
    """
    got = tensors(out)
    for name, ref in tensors(model).items():
        t = got.get(name)
        if t is None:
            continue
        if not all_finite(t.detach().to(ref.dtype)):
            raise DivergedError(
                f"{who}: diverged, {name} is not finite; the input model is unchanged; try a"
                " smaller learning rate or fewer epochs"
            )
        if isinstance(ref, nn.Parameter) and not ref.requires_grad and not tensors_equal(t, ref):
            raise DivergedError(f"{who}: changed {name}, which is frozen")


def restore_form(out: nn.Module, model: nn.Module) -> nn.Module:
    """Return a model with the types, strides, flags and modes of another; drop gradients."""
    cast(out, {name: t.dtype for name, t in tensors(model).items()})
    set_strides(out, get_strides(model))
    out.zero_grad(set_to_none=True)
    flags = dict(model.named_parameters(remove_duplicate=False))
    for name, p in out.named_parameters(remove_duplicate=False):
        p.requires_grad_(flags[name].requires_grad)
    modes = {name: m.training for name, m in model.named_modules()}
    for name, m in out.named_modules():
        m.training = modes[name]
    return out
