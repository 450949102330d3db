"""``Auto``: the setting that has a method chosen from the decision table."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Method, Problem

if TYPE_CHECKING:
    from torch import nn

    from unlearnkit.core.runtime import Runtime

AUTO = "auto"
"""What stands where a method's id would."""


class Auto(Method):
    """Choose a method from the decision table, audit what it made, and fall back.

    It is on no list of methods: a method sees nothing but its problem, and this needs the audit.
    ``uk.unlearn`` carries it out.
    """

    id: ClassVar[str] = AUTO
    info = Info(title="Chosen from a table", cite="", needs=frozenset(), tasks=frozenset())

    budget: float = Field(2.0, gt=0, allow_inf_nan=False)
    """Most that all of it may cost in row passes, audits included, as a share of retraining. From 1
    up, the cost of retraining is kept in reserve, so that it can follow what failed; below 1 a
    shorter training from scratch takes its place."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Refuse: a problem is not enough to choose by."""
        del p, rt
        raise UnsupportedError("auto: is no method by itself; carry it out with uk.unlearn")
