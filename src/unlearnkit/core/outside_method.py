"""What stands in the place of a method where another tool unlearned the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Method, Problem

if TYPE_CHECKING:
    from torch import nn

    from unlearnkit.core.runtime import Runtime


class OutsideMethod(Method):
    """A model that was unlearned outside this library: how is not known.

    It is on no list of methods. ``uk.audit(model, original=..., case=..., request=...)`` uses it.
    """

    id: ClassVar[str] = "outside"
    info = Info(title="Another tool", cite="", needs=frozenset(), tasks=frozenset())

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Refuse: there is nothing to carry out."""
        del p, rt
        raise UnsupportedError("outside: another tool unlearned the model; there is no method here")
