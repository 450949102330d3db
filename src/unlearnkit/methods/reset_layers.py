"""Last layers from untrained weights, then training on: the memory of a class is mostly there."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.last_layers import reset_last_layers
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import Run, WarmRestart


@register
class ResetLayers(Recalibrated):
    """Start the last layers from untrained weights, then train all layers on the retain set."""

    info = Info(
        title="Reset of the last layers",
        cite=(
            "this library; relatives are EU-k (Goel et al., 2022, arXiv:2201.06640), which freezes"
            " the earlier layers, and later-layer forgetting (Zhou et al., ICLR 2022,"
            " arXiv:2202.00155), made for generalisation"
        ),
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "When a whole class must go and the retain set and a model factory are there. It never"
            " reads the forget set."
        ),
        differs=("it is ours",),
        fails=("TODO",),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    layers: Annotated[float, SearchRange(0.2, 1)] = Field(0.4, gt=0, le=1)
    """Share of the layers, counted from the output, that start from untrained weights: the nearest
    number, at least one; 1 is a short retraining. A layer is a module with a weight matrix or
    kernel, with the normalisation that follows it."""

    renew: Annotated[float, SearchRange(0, 1)] = Field(0.0, ge=0, le=1)
    """Share of untrained weights that the earlier layers are mixed with: 0 is none. They keep
    their running statistics."""

    run: Run = WarmRestart(lr=1.0, shrink=0.0)
    """How long and how fast to train on: a warm restart, or a plain run (kind tuning)."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Reset and mix, then descend on the retained rows."""
        reset_last_layers(p, self.layers, self.renew)
        train_on_retained(p, self.run, rt)
        return p.model
