"""How much of the model was edited.

Distances from the original, never from an oracle: between models of different seeds a distance of
weights says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.core.metric import Goal, Score, metric

TWO = (ModelRole.ORIGINAL, ModelRole.UNLEARNED)
SHOWN = 6
OTHER_MODEL = "another architecture: the two models do not have the same parameters"

Pairs = dict[str, tuple[Tensor, Tensor]]
"""By name, the tensor in the original and in the unlearned model."""


@metric(Goal.VALUE, low=0.0, high=math.inf, reads=TWO, models=True, unit="relative")
def edit_size(e: Evidence) -> Score:
    """Euclidean distance of the parameters from the original's, relative to the original's norm."""
    pairs = _parameters(e)
    return Score(math.nan, note=OTHER_MODEL) if pairs is None else _relative(pairs.values())


@metric(Goal.VALUE, low=0.0, high=math.inf, reads=TWO, models=True, unit="relative")
def edit_size_largest_layer(e: Evidence) -> Score:
    """The largest edit size of any layer; a layer is a module with its own parameters."""
    pairs = _parameters(e)
    if pairs is None:
        return Score(math.nan, note=OTHER_MODEL)
    sizes = {name: _relative(layer.values()).value for name, layer in _layers(pairs).items()}
    if not sizes:
        return Score(math.nan, note="no parameters")
    largest = max(sizes, key=lambda name: sizes[name])
    return Score(sizes[largest], note=f"layer {largest}" if sizes[largest] > 0 else "")


@metric(Goal.VALUE, low=0.0, high=1.0, reads=TWO, models=True, unit="fraction")
def edited_share(e: Evidence) -> Score:
    """Share of the parameters' scalars that differ from the original's; says what is untouched."""
    pairs = _parameters(e)
    if pairs is None:
        return Score(math.nan, note=OTHER_MODEL)
    total = sum(a.numel() for a, _ in pairs.values())
    if not total:
        return Score(math.nan, note="no parameters")
    same = [
        name
        for name, layer in _layers(pairs).items()
        if all(torch.equal(a, b) for a, b in layer.values())
    ]
    more = f", … ({len(same)} in all)" if len(same) > SHOWN else ""
    note = f"untouched layers: {', '.join(same[:SHOWN])}{more}" if same else ""
    return Score(sum(int((a != b).sum()) for a, b in pairs.values()) / total, note=note)


@metric(Goal.VALUE, low=0.0, high=math.inf, reads=TWO, models=True, unit="relative")
def edit_size_buffers(e: Evidence) -> Score:
    """Edit size of floating-point buffers, such as the running statistics of normalisation."""
    pairs = _pairs(
        *({n: b for n, b in e.model(w).named_buffers() if b.is_floating_point()} for w in TWO)
    )
    if pairs is None:
        return Score(math.nan, note=OTHER_MODEL)
    if not pairs:
        return Score(math.nan, note="no floating-point buffers")
    return _relative(pairs.values())


def _parameters(e: Evidence) -> Pairs | None:
    return _pairs(*(dict(e.model(w).named_parameters()) for w in TWO))


def _pairs(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Pairs | None:
    if {n: t.shape for n, t in old.items()} != {n: t.shape for n, t in new.items()}:
        return None
    return {n: (t.detach().cpu(), new[n].detach().cpu()) for n, t in old.items()}


def _layers(pairs: Pairs) -> dict[str, Pairs]:
    layers: dict[str, Pairs] = {}
    for name, pair in pairs.items():
        layers.setdefault(name.rpartition(".")[0] or "model", {})[name] = pair
    return layers


def _relative(pairs: Iterable[tuple[Tensor, Tensor]]) -> Score:
    moved, size = 0.0, 0.0
    for a, b in pairs:
        moved += float((b.double() - a.double()).square().sum())
        size += float(a.double().square().sum())
    if moved == 0:
        return Score(0.0)
    if size == 0:
        return Score(math.inf, note="the original's values are all 0")
    return Score(math.sqrt(moved / size))
