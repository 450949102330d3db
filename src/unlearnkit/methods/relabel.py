"""Relabelling: fine-tuning with wrong targets for the forget set."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import Categorical, SearchRange
from unlearnkit.train.relabelling import Misleading, train_on_wrong_targets
from unlearnkit.train.schedule import Run, WarmRestart
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class Relabel(Recalibrated):
    """Train on retained rows as they are and on forget rows with wrong targets."""

    info = Info(
        title="Random relabelling",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933; Graves et al., arXiv:2010.10981",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For whole classes and mislabelled rows: targets at runner_up are what a retrained"
            " model would predict there. For rows drawn at random there is little to forget; set"
            " the run's shrink to 0."
        ),
        differs=(
            "by default it is a warm restart for 0.18 of the cost of retraining, in which all"
            " parameters shrink by exp(-0.5); forget rows are in its first 0.15 only, mixed into"
            " the retained batches in proportion. Published code alternates passes: the presets",
            "the restart and the shrink are not part of relabelling and would do most of the work"
            " alone: on digits they close 0.97 of the Jensen-Shannon distance to retraining for a"
            " class and 0.95 for a mislabelled tenth without wrong targets, 0.98 and 0.95 with"
            " them. Wrong targets can replace the shrink: with shrink 0 they close 0.97 and 0.93",
            "targets are never the true one (the paper's rule); reference code draws from all"
            " classes, so that one row in C keeps its label",
            "removed classes are never drawn, because a retrained model does not know them",
            "`runner_up` is ours: the original's own prediction without the true and the removed"
            " classes, as a soft target",
            "`renew` is ours, after shrink and perturb (Ash and Adams, NeurIPS 2020,"
            " arXiv:1910.08475): the run starts between the model's weights and untrained ones",
            "multilabel rows get flipped labels; regression rows get targets from a Gaussian with"
            " the training targets' mean and deviation",
        ),
        fails=(
            "with uniform targets the model is unsure of forget rows in a way that retrained"
            " models are not, which membership attacks detect: the preset `paper` closes 0.71 for"
            " a class of digits and moves away from retraining for a mislabelled tenth (-0.14)",
            "on a random tenth of digits the default closes 0.48 of the distance to retraining,"
            " without shrink 0.74",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "targets": "uniform",
                "run": FineTuneSchedule.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
                    augment="flip_crop",
                ),
                "early": 1.0,
            },
            "reference": {
                "batch_norm": "keep",
                "targets": "uniform",
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-4, epochs=3, batch_size=128),
                "early": 1.0,
            },
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    targets: Annotated[Misleading, Categorical(("uniform", "runner_up"))] = "runner_up"
    """What forget rows are taught: a wrong target drawn anew for each batch, or the original's own
    answer (a distribution) without the true and the removed classes. Where outcomes do not
    exclude each other there is no runner-up, and targets are drawn."""

    early: Annotated[float, SearchRange(0, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps of a restart, or of the epochs of a plain run, from the first, that have
    forget rows; at 1 all, as published."""

    run: Run = WarmRestart()
    """How to train: a warm restart on both kinds of rows mixed in proportion, or a plain run (kind
    tuning) whose epochs are a pass over the forget rows and then one over the retained."""

    renew: float = Field(0.0, ge=0, le=1)
    """Share of untrained weights that each parameter is mixed with at the start: 0 is none, 1
    starts afresh. Above 0 the case must give a model factory."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Mix both kinds of rows, or alternate between them."""
        mix_with_untrained(p, self.renew)
        train_on_wrong_targets(p, self.targets, self.run, rt, early=self.early)
        return p.model
