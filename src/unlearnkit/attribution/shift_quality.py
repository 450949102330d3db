"""Quality of an attribution: correlation and slope of predicted and observed shifts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from unlearnkit.core.errors import InputError

LEAST_MODELS = 2
"""Fewest held-out models that a quality is computed from."""


@dataclass(frozen=True)
class ShiftQuality:
    """How well predicted shifts of outputs agree with those of models that were held out."""

    correlation: float
    """Pearson correlation over all numbers, from -1 to 1; 1 is perfect. Noise of single models
    lowers it: it is a lower bound. NaN with a note where it is undefined."""

    slope: float
    """Factor by which predictions must be multiplied to fit best, ``<p, o> / <p, p>``; 1 is right,
    below 1 means that predictions are too large. Noise of single models leaves it alone."""

    models: int
    """Held-out models."""

    note: str = ""
    """Why a number is NaN."""

    def facts(self) -> dict[str, Any]:
        """Return the quality as JSON-able facts: NaN as None."""
        return {k: None if v != v else v for k, v in asdict(self).items()}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> ShiftQuality:
        """Return the quality that ``facts`` were made of."""
        found: dict[str, Any] = {k: math.nan if v is None else v for k, v in facts.items()}
        return cls(**found)

    def sentence(self) -> str:
        """Return the quality in words."""
        if self.note:
            return f"quality of the attribution: unknown ({self.note})"
        return (
            f"quality of the attribution on {self.models} held-out models: correlation"
            f" {self.correlation:.2f} (at least: single models are noisy), slope {self.slope:.2f}"
            " (1 is right)"
        )


def shift_quality(predicted: Tensor, observed: Tensor) -> ShiftQuality:
    """Return how predicted shifts agree with observed ones.

    Args:
        predicted: Shifts ``(M, ...)`` of M held-out models.
        observed: The same numbers of these models.

    Returns:
        Correlation and slope over all numbers at once; NaN with the reason where there are fewer
        than two models, or a side is constant.

    Raises:
        InputError: If the shapes differ.
    """
    if predicted.shape != observed.shape:
        raise InputError(
            f"quality: predicted shifts have shape {tuple(predicted.shape)}, observed ones"
            f" {tuple(observed.shape)}; give both of the same models, rows and outputs"
        )
    models = len(predicted)
    if models < LEAST_MODELS:
        why = f"{models} held-out models, at least {LEAST_MODELS} are needed"
        return ShiftQuality(math.nan, math.nan, models, why)
    p, o = predicted.double().flatten(), observed.double().flatten()
    power = float(p @ p)
    slope = float(p @ o) / power if power else math.nan
    p, o = p - p.mean(), o - o.mean()
    spread = float(p.norm() * o.norm())
    if not power or not spread:
        return ShiftQuality(math.nan, slope, models, "predicted or observed shifts are constant")
    return ShiftQuality(float(p @ o) / spread, slope, models)
