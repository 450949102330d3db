"""Hidden targets: stand-ins for targets that may not be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearnkit.core.errors import UnlearnkitError


class Hidden(Tensor):
    """Targets that may not be read: rows can be picked and joined, all else raises."""

    why: UnlearnkitError

    @classmethod
    def of(cls, none: Tensor, why: UnlearnkitError) -> Hidden:
        """Return stand-ins ``(B, 0)`` that raise ``why``."""
        hidden = none.as_subclass(cls)
        hidden.why = why
        return hidden

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        flat = [t for g in given for t in (g if isinstance(g, list | tuple) else [g])]
        why = next(t.why for t in flat if isinstance(t, Hidden))
        if func not in {Tensor.__getitem__, torch.cat}:
            raise why
        with torch._C.DisableTorchFunctionSubclass():
            return cls.of(func(*args, **(kwargs or {})), why)


def no_targets(count: int) -> Tensor:
    """Return what stands for the targets of rows that have none: ``(N, 0)``."""
    return torch.empty(count, 0, dtype=torch.long)
