"""CF-k: catastrophic forgetting of the last k layers."""

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.last_layers import earlier_layers_held
from unlearnkit.train.mixed_batches import train_on_retained


@register
class CFk(Recalibrated):
    """Train the last layers on, on the retain set; earlier layers stay as they are."""

    info = Info(
        title="CF-k (catastrophically forgetting the last k layers)",
        cite="Goel et al., 2022, arXiv:2201.06640",
        needs=frozenset({Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when="TODO",
        differs=("TODO",),
        fails=("TODO",),
        presets={
            "paper": {
                "batch_norm": "keep",
                "run": FineTuneSchedule.exact(
                    lr=0.1,
                    momentum=0.9,
                    weight_decay=5e-5,
                    schedule="cosine",
                    clip_norm=10.0,
                    epochs=30,
                    batch_size=64,
                    augment="flip_crop",
                ),
            },
            "reference": {
                "batch_norm": "keep",
                "run": FineTuneSchedule.exact(lr=0.01, momentum=0.0, epochs=10, batch_size=128),
            },
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    layers: int = Field(1, ge=1)
    """Layers that are trained, counted from the output (paper: k); all of them is fine-tuning. A
    layer is a module with a weight matrix or kernel, with the normalisation that follows it."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How long and how fast to train on. A share of 0 changes nothing."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Hold earlier layers, then descend on the retained rows."""
        with earlier_layers_held(p.model, self.layers, rt, self.id):
            train_on_retained(p, self.run, rt)
        return p.model
