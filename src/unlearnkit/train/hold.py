"""Holding some scalars of a model where they are, whatever moves the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unlearnkit.core.runtime import Runtime


@dataclass
class _Part:
    p: nn.Parameter
    free: Tensor
    held: Tensor
    start: Tensor
    version: int


class Held:
    """The scalars of a model that a mask leaves out, with the values that they keep.

    Values are restored after each step: momentum, weight decay and shrinking move a scalar even
    where its gradient is zero. Gradients are projected only where their norm counts.
    """

    def __init__(self, model: nn.Module, chosen: Mapping[str, Tensor]) -> None:
        """Take the values as they are now.

        Args:
            model: Its trainable parameters that the mask names are held where it is false.
            chosen: True where a scalar may move, by parameter name.
        """
        self._parts: list[_Part] = []
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.requires_grad and not bool(chosen[name].all()):
                    free = chosen[name].to(p.device)
                    self._parts.append(_Part(p, free, ~free, p.clone(), p._version))

    def project(self) -> None:
        """Set the gradients of held scalars to zero."""
        for part in self._parts:
            if part.p.grad is not None:
                part.p.grad.masked_fill_(part.held, 0)

    def restore(self) -> None:
        """Set held scalars to their values; a tensor that was not written to is left alone."""
        written = [part for part in self._parts if part.p._version != part.version]
        if not written:
            return
        with torch.no_grad():
            for part in written:
                torch.where(part.free, part.p, part.start, out=part.p)
                part.version = part.p._version


def holding(rt: Runtime, model: nn.Module, chosen: Mapping[str, Tensor]) -> Runtime:
    """Return the same run, in which some scalars of a model stay where they are now.

    Args:
        rt: The run; what it holds already it goes on holding.
        model: The model.
        chosen: True where a scalar may move, by name of a trainable parameter.

    Returns:
        The run, with the same meter and notes.
    """
    return replace(rt, holds=(*rt.holds, Held(model, chosen)))
