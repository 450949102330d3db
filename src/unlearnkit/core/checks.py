"""What a method returned, held against what it was given."""

from __future__ import annotations

import torch
from torch import nn

from unlearnkit.core.errors import DivergedError, UnlearnkitError
from unlearnkit.core.structure import difference, equal, place, tensors


def check_result(out: nn.Module, model: nn.Module, original: nn.Module, who: str) -> None:
    """Refuse what is no finite model of the same architecture, or was not made on a copy.

    Args:
        out: What the method returned.
        model: The caller's model, which nobody may change.
        original: The copy of it that the method could read.
        who: The method.
    """
    _check_untouched(original, model, who)
    _check_form(out, model, original, who)
    _check_values(out, model, who)


def _check_untouched(original: nn.Module, model: nn.Module, who: str) -> None:
    odd = difference(original, model)
    if odd:
        raise UnlearnkitError(f"{who}: changed the original, which is read only: {odd}")
    theirs = tensors(model)
    for name, ours in tensors(original).items():
        if name in theirs and not equal(ours, theirs[name]):
            raise UnlearnkitError(f"{who}: changed {name} of the original, which is read only")


def _check_form(out: nn.Module, model: nn.Module, original: nn.Module, who: str) -> None:
    if not isinstance(out, nn.Module):
        raise DivergedError(f"{who}: returned {type(out).__name__}, not a model")
    odd = difference(out, model)
    if odd:
        raise DivergedError(f"{who}: returned another architecture: {odd}")
    taken = {place(p) for m in (model, original) for p in m.parameters() if p.numel()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, p in out.named_parameters():
        if name in trained and place(p) in taken:
            raise UnlearnkitError(f"{who}: returned {name} in the memory of the model it was given")


def _check_values(out: nn.Module, model: nn.Module, who: str) -> None:
    got = tensors(out)
    for name, ref in tensors(model).items():
        t = got.get(name)
        if t is None:
            continue
        if not torch.isfinite(t.detach().to(ref.dtype)).all():
            raise DivergedError(
                f"{who}: diverged, {name} is not finite; the input model is unchanged; try a"
                " smaller learning rate or fewer epochs"
            )
        if isinstance(ref, nn.Parameter) and not ref.requires_grad and not equal(t, ref):
            raise DivergedError(f"{who}: changed {name}, which is frozen")
