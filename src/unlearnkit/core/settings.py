"""Nested settings: one value merged over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def deep_merge(base: object, over: object) -> Any:
    """Return a value with another laid over it, at every depth; neither is changed.

    A group of settings keeps each field that ``over`` does not name. A group of another ``kind``
    replaces the whole group, because its fields differ; so does anything that is no mapping.
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
