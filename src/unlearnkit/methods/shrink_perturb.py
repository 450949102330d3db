"""Shrink and perturb: training on from weights mixed with untrained ones."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import Run, WarmRestart
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class ShrinkPerturb(Recalibrated):
    """Mix the weights with untrained ones, then train on the retain set at a rate that falls."""

    info = Info(
        title="Shrink and perturb",
        cite="Ash and Adams, NeurIPS 2020, arXiv:1910.08475 (there for warm starts)",
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "When the memory of rows must go and the retain set and a model factory are there. It"
            " never reads the forget set. The dial `renew` goes from the original (0) to a short"
            " retraining (1): 0.7 is enough for rows drawn at random; classes and wrong labels"
            " need 0.95."
        ),
        differs=(
            "the paper mixes weights to go on training with more data; here the training goes on"
            " with fewer. The mix is the paper's, with `1 - renew` for its shrink factor; its noise"
            " is an untrained network of the same kind",
            "the training is a warm restart: three times the recipe's peak learning rate, falling"
            " to zero, for 0.18 of the cost of retraining",
            "what the mix adds to plain fine-tuning on the same schedule (`renew` 0): on digits a"
            " class that must go keeps an accuracy of 0.60 without it and of 0 with it",
        ),
        fails=(
            "a class of digits: memory shows up to 0.9 (U-LiRA AUC 0.67) and nearly ends at 0.95"
            " (0.55), where test accuracy is that of a short retraining",
            "its result is a model that was trained for a shorter time: attacks that compare it"
            " with retrained models see that, although no memory of the forget set shows",
            "large convolutional networks on photographs lose accuracy, because so short a"
            " training does not rebuild them; give a larger `share`",
        ),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    renew: Annotated[float, SearchRange(0.2, 1)] = Field(0.7, ge=0, le=1)
    """Share of untrained weights that each parameter is mixed with at the start: 0 is none, 1
    starts from the untrained network, as a short retraining does."""

    run: Run = WarmRestart(lr=3.0, shrink=0.0)
    """How long and how fast to train on: a warm restart, or a plain run (kind tuning)."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Mix, then descend on the retained rows."""
        mix_with_untrained(p, self.renew)
        train_on_retained(p, self.run, rt)
        return p.model
