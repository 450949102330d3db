"""How far the weights are from those of retrained models.

Between models of different seeds this says nothing about what they know: two oracles are as far
apart as an oracle and any other model. Read it next to the distance between oracles, and trust it
only if all of them share the original's initialisation and order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.core.metric import Goal, Score, metric

SHOWN = 6

Squares = Mapping[str, tuple[float, float]]
"""By layer, the squared distance of two models, and the squared norm of the second."""


@metric(
    Goal.VALUE,
    low=0.0,
    high=math.inf,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    tier=AuditTier.REFERENCE,
    models=True,
    unit="relative",
)
def weight_distance(e: Evidence) -> Score:
    """Euclidean distance of the parameters from an oracle's, relative to the oracle's norm.

    Mean over oracles; the note has it layer by layer, next to the distance between oracles. It is
    no measure of forgetting: oracles of different seeds are as far from each other.
    """
    mine = [_squares(e, k) for k in range(e.oracles)]
    known = [s for s in mine if s]
    if len(known) < len(mine):
        return Score(math.nan, note="the models do not have the same parameters")
    seats = [e.with_candidate(ModelRole.ORACLE, k) for k in range(e.oracles)]
    beside = [s for seat in seats for k in range(seat.oracles) if (s := _squares(seat, k))]
    layers = [name for name in known[0] if all(s[name][1] > 0 for s in known)]
    told = ", ".join(
        f"{name} {_mean(known, name):.3g}{_floor(beside, name)}" for name in layers[:SHOWN]
    )
    more = f", … ({len(layers)} layers)" if len(layers) > SHOWN else ""
    return Score(_mean(known), note=f"by layer: {told}{more}")


def _squares(e: Evidence, k: int) -> Squares:
    oracle = e.model(ModelRole.ORACLE, k)

    def compare(model: nn.Module) -> Squares:
        ours, theirs = dict(model.named_parameters()), dict(oracle.named_parameters())
        if {n: p.shape for n, p in ours.items()} != {n: p.shape for n, p in theirs.items()}:
            return {}
        found: dict[str, tuple[float, float]] = {}
        for name, p in ours.items():
            a, b = p.detach().double().cpu(), theirs[name].detach().double().cpu()
            layer = name.rpartition(".")[0] or "model"
            apart, size = found.get(layer, (0.0, 0.0))
            found[layer] = apart + float((a - b).square().sum()), size + float(b.square().sum())
        return found

    return e.cached(("weight distance", oracle), compare, ModelRole.UNLEARNED)


def _mean(models: list[Squares], layer: str | None = None) -> float:
    values = []
    for found in models:
        chosen = found.values() if layer is None else [found[layer]]
        apart, size = (math.fsum(x) for x in zip(*chosen, strict=True))
        values.append(0.0 if apart == 0 else math.inf if size == 0 else math.sqrt(apart / size))
    return math.fsum(values) / len(values)


def _floor(oracles: list[Squares], layer: str) -> str:
    return f" (between oracles {_mean(oracles, layer):.3g})" if oracles else ""
