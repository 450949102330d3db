"""The request, and how hard it is to measure whether it was carried out."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.digest import digest
from unlearnkit.core.request import (
    Classes,
    Features,
    ForgetRequest,
    Groups,
    Key,
    Labels,
    Targets,
)
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.text import one_line

NEAR_ROWS = 2_000
"""Most forget rows, and 10 times as many retained rows, that distances are taken of."""


def describe_request(request: ForgetRequest | None, count: int) -> str:
    """Return the request as a phrase: ``forget class 3 (147 rows)``."""
    rows = f"{count} row{'s' if count != 1 else ''}"
    if isinstance(request, Classes):
        return f"forget class {_listed(request.classes)} ({rows})"
    if isinstance(request, Groups):
        return f"forget group {_listed(request.groups)} ({rows})"
    if isinstance(request, Targets):
        return f"forget {request.words} ({rows})"
    if isinstance(request, Features):
        return f"remove {request.words} ({rows} changed)"
    if isinstance(request, Labels):
        return f"correct the labels of {rows}"
    return f"forget {rows}"


def training_digest(case: Case) -> str:
    """Return the digest of a case's training data; empty where the case has none."""
    if case.parts is not None:
        forget, retain = case.parts
        return digest({"forget": forget.key(), "retain": retain.key() if retain else None})
    return case.train.key() if case.train else ""


def target_counts(view: View | None) -> dict[str, int]:
    """Return how many rows there are of each class; nothing where targets are no classes."""
    if view is None or not view.labelled or view.y.is_floating_point() or view.y.ndim != 1:
        return {}
    counts = Counter(view.y.tolist())
    return {str(k): counts[k] for k in sorted(counts)}


def duplicates_and_nearest(parts: Partition, rt: Runtime) -> tuple[int | None, float | None]:
    """Return how close the forget rows are to rows that stay.

    An exact oracle still remembers forget rows that have a twin among the retained rows.

    Args:
        parts: The rows, in memory and of tensor inputs; otherwise nothing is known.
        rt: Draws samples of large sets.

    Returns:
        How many forget rows stand bit for bit among the retained rows, and the median Euclidean
        distance from a forget row to the nearest retained row, both over samples.
    """
    others = parts.unchanged_rows
    if parts.forget is None or others is None:
        return None, None
    go = _flat(parts.forget.sample(NEAR_ROWS, rt, "audit/near/forget"))
    stay = _flat(others.sample(10 * NEAR_ROWS, rt, "audit/near/retain"))
    if go is None or stay is None:
        return None, None
    nearest = torch.cat([torch.cdist(part, stay).min(1).values for part in torch.split(go, 256)])
    known = {r.numpy().tobytes() for r in stay}
    twins = sum(r.numpy().tobytes() in known for r in go)
    return twins, float(nearest.median())


def row_bytes(view: View) -> list[bytes]:
    """Return each row's input and target as bytes; nothing where inputs are no tensor in memory."""
    x = _flat(view)
    if x is None or not view.labelled:
        return []
    y = view.y.reshape(len(view), -1)
    return [a.numpy().tobytes() + b.numpy().tobytes() for a, b in zip(x, y, strict=True)]


def _flat(view: View) -> Tensor | None:
    if not isinstance(view.data, TensorData) or not isinstance(view.data.x, Tensor):
        return None
    return view.data.x[view.rows].reshape(len(view), -1).float().contiguous()


def _listed(values: tuple[Key, ...]) -> str:
    shown = ", ".join(one_line(str(value), 40) for value in values[:8])
    return shown if len(values) <= 8 else f"{shown}, … ({len(values)} in all)"
