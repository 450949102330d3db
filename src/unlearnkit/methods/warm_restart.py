"""Warm restart: a short training at a high rate while all weights shrink."""

from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import WarmRestart


@register
class ShrinkingRestart(Recalibrated):
    """Train on the retain set at a high rate that falls, while all weights shrink at the start."""

    info = Info(
        title="Warm restart with shrinking weights",
        cite="this library; restarts after Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983",
        needs=frozenset({Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For classes and wrong labels in networks with batch normalisation, where shrinking"
            " weights raises the effective learning rate and erases. It never reads the forget set"
            " and needs no model factory. For perceptrons `shrink_perturb` forgets more."
        ),
        differs=(
            "it is ours, and was the default of `finetune` before: twice the recipe's peak learning"
            " rate, falling to zero, for 0.18 of the cost of retraining, while all parameters"
            " shrink by exp(-1), in total, in its first third",
            "the shrink is decoupled from the loss, as weight decay is in AdamW, and ends long"
            " before the training does: weights that the retained rows do not rebuild are gone,"
            " whatever they held",
            "a restart whose retained loss is bad halfway starts again at half the rate",
        ),
        fails=(
            "a class of digits, perceptron: memory stays whole (U-LiRA AUC 1.00), although the"
            " model no longer answers the class",
            "its result is a model that was trained for a shorter time: attacks that compare it"
            " with retrained models see that, although little memory of the forget set shows",
            "where its share of the recipe is a handful of steps, it shrinks the model and cannot"
            " rebuild it; give a larger `share`, or `shrink` 0",
        ),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    run: WarmRestart = WarmRestart(shrink=1.0)
    """How long and how fast to train on, and how much weights shrink. A share of 0 changes
    nothing."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend on the retained rows while weights shrink."""
        train_on_retained(p, self.run, rt)
        return p.model
