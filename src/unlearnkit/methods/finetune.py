"""Fine-tuning on the retain set."""

from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.train.mixed_batches import train_on_retained


@register
class FineTune(Recalibrated):
    """Descend on the retain loss alone."""

    info = Info(
        title="Fine-tuning",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933",
        needs=frozenset({Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}) | TOKEN_TASKS,
        when=(
            "As the baseline that every other method must beat at equal cost: their pages show what"
            " they add to it on the same schedule. Alone it forgets little of a class, and most of"
            " what there is to forget of rows drawn at random."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs; published settings change next to nothing on small"
            " problems: the presets",
            "batch normalisation follows the data; one published small-scale script freezes it"
            " and pulls weights towards the original",
        ),
        fails=(
            "a forgotten class of digits keeps an accuracy of 0.7 where retraining has 0; with the"
            " preset `paper` 0.97. `warm_restart` and `shrink_perturb` are ours and forget more on"
            " retained rows alone",
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

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How long and how fast to train on. A share of 0 changes nothing."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend on the retained rows."""
        train_on_retained(p, self.run, rt)
        return p.model
