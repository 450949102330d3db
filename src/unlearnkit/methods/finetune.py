"""Fine-tuning on the retain set."""

from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import Run, WarmRestart


@register
class FineTune(Recalibrated):
    """Descend on the retain loss alone."""

    info = Info(
        title="Fine-tuning",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933",
        needs=frozenset({Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "As the baseline that every other method must beat at equal cost. With its default"
            " restart it is strong by itself for classes and mislabelled rows. For rows drawn at"
            " random it costs accuracy, and there is little to forget."
        ),
        differs=(
            "by default it is a warm restart: twice the recipe's peak learning rate, falling to"
            " zero, for 0.18 of the cost of retraining, and all parameters shrink by exp(-1), in"
            " total, in its first third. The preset `paper` is plain fine-tuning at published"
            " settings, which change next to nothing on small problems: on digits, a forgotten"
            " class goes from an accuracy of 1 to 0.97 where retraining has 0",
            "the shrink is not part of fine-tuning, and for classes it does most of the work:"
            " weights that the retained rows do not rebuild are gone, whatever they held. On"
            " digits a forgotten class keeps an accuracy of 0.71 after the same restart without it"
            " (shrink 0) and of 0 with it, at 0.7 points less accuracy on retained rows",
            "a restart whose retained loss is bad halfway starts again at half the rate",
            "batch normalisation follows the data; one published small-scale script freezes it"
            " and pulls weights towards the original",
        ),
        fails=(
            "with the preset `paper` a forgotten class keeps an accuracy near 1 where retraining"
            " has 0",
            "where its share of the recipe is a handful of steps, the default shrinks the model"
            " and cannot rebuild it; give a larger `share`, or `shrink` 0",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "run": FineTuneSchedule.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
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

    run: Run = WarmRestart(shrink=1.0)
    """How long and how fast to train on: a warm restart, or a plain run (kind tuning). A share of
    0 changes nothing."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend on the retained rows."""
        train_on_retained(p, self.run, rt)
        return p.model
