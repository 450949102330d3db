"""Result file of language metrics: each one's value and values by item, as JSON.

The layout is that of OpenUnlearning: ``{metric: {"agg_value": number, "value_by_index": {item:
{name: number}}}}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from pydantic import ConfigDict, ValidationError, model_validator

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_text


class MetricResult(FrozenModel):
    """The value of one metric."""

    model_config = ConfigDict(extra="allow")

    agg_value: float | None = None
    """Over all items; None where it is not one number."""

    value_by_index: dict[str, dict[str, object] | None] | None = None
    """By item: the names and values of what was measured, such as ``{"prob": 0.9}``; None for an
    item without a value."""

    @model_validator(mode="before")
    @classmethod
    def _public_name(cls, entry: object) -> object:
        """Take the name in the public documents for the name that the public code writes."""
        if not isinstance(entry, dict):
            return entry
        names = {"values_by_index": "value_by_index"}
        return {names.get(k, k): v for k, v in entry.items()}


def read_metric_results(path: Path) -> dict[str, MetricResult]:
    """Return the metrics of a file; other entries of a metric are kept, as they are.

    Raises:
        InputError: If the file is not there, or not of this layout.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"metric results: {path} cannot be read as JSON: {e}") from None
    if not isinstance(content, dict):
        raise InputError(f"metric results: {path} must hold metrics by name, got a list or value")
    try:
        return {str(name): MetricResult.model_validate(entry) for name, entry in content.items()}
    except ValidationError as e:
        raise InputError(
            f"metric results: {path} does not hold agg_value and value_by_index: {e.errors()[0]}"
        ) from None


def write_metric_results(path: Path, results: Mapping[str, MetricResult]) -> Path:
    """Write the metrics, whole or not at all; a number that is not finite becomes null."""
    content = {
        name: {
            key: _plain(value)
            for key, value in entry.model_dump().items()
            if key == "agg_value" or value is not None
        }
        for name, entry in results.items()
    }
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value
