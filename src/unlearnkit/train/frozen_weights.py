"""Frozen scalars: the part of a model outside a mask stays unchanged."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.runtime import Runtime

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class FrozenScalars:
    """The scalars of a model that a mask leaves out, with the values that they keep.

    Values are restored after each step: momentum, weight decay and shrinking move a scalar even
    where its gradient is zero. Gradients are projected only where their norm counts. Numbers are
    taken for the integers that have their bits: times 0 or 1, plus the kept bits or 0, is exact for
    every number, and many times faster than a choice by truth values.
    """

    _bits: list[Tensor]
    _places: list[int]
    _versions: list[int]

    def __init__(self, model: nn.Module, chosen: Mapping[str, Tensor]) -> None:
        """Take the present values of trainable parameters where the mask ``chosen`` is false."""
        some = {n: p for n, p in model.named_parameters() if p.requires_grad}
        some = {n: p for n, p in some.items() if not bool(chosen[n].all())}
        self._params = list(some.values())
        self._look()
        self._free = [
            chosen[n].to(b.device, b.dtype) for n, b in zip(some, self._bits, strict=True)
        ]
        self._start = [b * (1 - f) for b, f in zip(self._bits, self._free, strict=True)]

    def project(self) -> None:
        """Set the gradients of held scalars to zero."""
        for p, free in zip(self._params, self._free, strict=True):
            if p.grad is not None:
                _bits(p.grad).mul_(free)

    def restore(self) -> None:
        """Set held scalars to their values; tensors are left alone if none was written to."""
        if [p.data_ptr() for p in self._params] != self._places:
            self._look()
        elif [p._version for p in self._params] == self._versions:
            return
        torch._foreach_mul_(self._bits, self._free)
        torch._foreach_add_(self._bits, self._start)
        self._versions = [p._version for p in self._params]

    def _look(self) -> None:
        """Look at the memory of the parameters as integers."""
        self._places = [p.data_ptr() for p in self._params]
        self._versions = [p._version for p in self._params]
        self._bits = [_bits(p) for p in self._params]


def freeze_outside_mask(rt: Runtime, model: nn.Module, chosen: Mapping[str, Tensor]) -> Runtime:
    """Return the same run, in which scalars outside the mask ``chosen`` stay as they are now."""
    rt.masks.append(chosen)
    return replace(rt, holds=(*rt.holds, FrozenScalars(model, chosen)))


def _bits(t: Tensor) -> Tensor:
    return t.detach().view(_INTEGERS[t.element_size()])
