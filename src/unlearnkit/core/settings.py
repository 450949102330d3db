"""Nested settings: one value laid over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def deep_merge(base: object, over: object) -> Any:
    """Return a value with another laid over it, at every depth.

    A group of settings keeps each field that ``over`` does not name. A group of another ``kind``
    replaces the group, because its fields are not the same; whatever is no mapping replaces.

    Args:
        base: A value, a mapping or a model of settings.
        over: What takes precedence.

    Returns:
        The merged value; neither argument is changed.
    """
    if not isinstance(over, Mapping):
        return over
    if isinstance(base, BaseModel):
        own: Mapping[str, Any] = {name: getattr(base, name) for name in type(base).model_fields}
    elif isinstance(base, Mapping):
        own = base
    else:
        return over
    if "kind" in own and over.get("kind", own["kind"]) != own["kind"]:
        return over
    return {**own, **{name: deep_merge(own.get(name), value) for name, value in over.items()}}
