"""Reset of the last layers, where most of the memory of a class is, then training on."""

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
            "When a whole class must go from a network with batch normalisation, and the retain set"
            " and a model factory are there. It never reads the forget set. In perceptrons mix the"
            " earlier layers too: `renew` 0.8 and `run.lr` 3."
        ),
        differs=(
            "it is ours. All layers are trained on; EU-k freezes those that are not reset",
            "the training is a warm restart at the recipe's peak learning rate, falling to zero,"
            " for 0.18 of the cost of retraining",
            "what the reset adds to plain fine-tuning on the same schedule: a class of digits in a"
            " network with batch normalisation has a memory (U-LiRA AUC) of 0.53 with it and of"
            " 1.00 without",
        ),
        fails=(
            "perceptrons at `renew` 0: no margin shows the class, but the features below the last"
            " layer still hold it. A new head on them has error 0.33 on digits, retrained models"
            " 0.47, and the audit says LEAKS; at `renew` 0.7 it is 0.45",
            "wrong labels: what earlier layers know of them stays. Digits: memory 0.99 in a"
            " perceptron, 0.82 with batch normalisation",
            "speeches as word counts, one person's: the first layer keeps words, and memory is 0.73"
            " at the test accuracy of retraining",
            "2,000 photographs, 12 epochs: test accuracy 0.54, where retraining has 0.58 and a"
            " training from scratch of equal cost 0.37. With 10,000 and 20 epochs it is that of"
            " retraining (0.72; from scratch 0.58)",
        ),
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
        reset_last_layers(p, self.layers, self.renew, rt, self.id)
        train_on_retained(p, self.run, rt)
        return p.model
