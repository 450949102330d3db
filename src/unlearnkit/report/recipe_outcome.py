"""Recipe outcome: what a report says of the recipe check."""

from __future__ import annotations

from typing import Literal

from unlearnkit.core.checked import FrozenModel


class RecipeMeasure(FrozenModel):
    """One quantity of the given model, and of originals trained anew by the recipe."""

    name: str
    """In words: ``mean loss, retain set``."""

    original: float | None
    """Of the model at hand; None where it is undefined."""

    originals: tuple[float | None, ...]
    """Of each original that was trained anew."""

    p: float | None = None
    """Of the given model being one more of them; None where that is not tested."""


class RecipeCheck(FrozenModel):
    """Whether the recipe, or ``train_model``, gives models like the one at hand."""

    outcome: Literal["reproduced", "mismatch", "spread unknown", "not checked"]
    sentence: str
    """What was found, or why nothing was checked."""

    remedy: str = ""
    """How a mismatch is mended."""

    p: float | None = None
    """Of all tests together; None with fewer than three originals."""

    measures: tuple[RecipeMeasure, ...] = ()
    seeds: tuple[int, ...] = ()
    """Of the originals that were trained by the recipe."""

    trained_models: int = 0
    """How many of them had to be trained for this audit; the others came from the cache."""

    seconds: float = 0.0
    """What training all of them took, whether now or before."""

    forward: int = 0
    backward: int = 0
    """Rows that their training ran through; 0 where a training loop of the user's own did not
    count them."""
