"""EU-k: exact unlearning of the last k layers."""

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.last_layers import earlier_layers_held
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import Run
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class EUk(Recalibrated):
    """Train the last layers from scratch on the retain set; earlier layers stay as they are."""

    info = Info(
        title="EU-k (exact unlearning of the last k layers)",
        cite="Goel et al., 2022, arXiv:2201.06640",
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
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
                    epochs=62,
                    batch_size=64,
                    augment="flip_crop",
                ),
            },
            "reference": {"batch_norm": "keep", "run": FineTuneSchedule(lr=1.0, share=1.0)},
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    layers: int = Field(1, ge=1)
    """Layers that are trained anew, counted from the output (paper: k); all of them is a short
    retraining. A layer is a module with a weight matrix or kernel, with the normalisation that
    follows it."""

    run: Run = FineTuneSchedule(lr=1.0, share=0.15)
    """How long and how fast to train: a plain run (kind tuning), or a warm restart."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Hold earlier layers, renew the last ones, then descend on the retained rows."""
        with earlier_layers_held(p.model, self.layers, rt, self.id) as held:
            mix_with_untrained(p, 1.0, set(p.model.modules()).difference(held))
            train_on_retained(p, self.run, rt)
        return p.model
