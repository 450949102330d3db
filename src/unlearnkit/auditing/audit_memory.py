"""Audit memory: what several audits of one case find out about shared models."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from unlearnkit.auditing.metric_table import Reference
from unlearnkit.report.recipe_outcome import RecipeCheck


@dataclass
class AuditMemory:
    """What audits of one case remember, so that a further one need not find it out again.

    A caller who audits many models with the same original and oracles makes one and passes it to
    each audit. Models are known by the digest of their weights.
    """

    models: dict[str, dict[Hashable, object]] = field(default_factory=dict)
    """By digest: what was found out about an oracle."""

    tables: dict[Hashable, dict[str, Reference]] = field(default_factory=dict)
    """By original, oracles and circumstances: their values of each metric."""

    recipes: dict[Hashable, RecipeCheck] = field(default_factory=dict)
    """By original, training and rows: whether the recipe gives models like it."""

    def model(self, name: str) -> dict[Hashable, object]:
        """Return what is known of the model of a digest; what is found is added there."""
        return self.models.setdefault(name, {})

    def table(self, key: Hashable) -> dict[str, Reference]:
        """Return the known values of an original and its oracles; new ones are added there."""
        return self.tables.setdefault(key, {})

    def clear(self) -> None:
        """Forget everything."""
        self.models.clear()
        self.tables.clear()
        self.recipes.clear()
