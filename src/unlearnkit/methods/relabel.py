"""Relabelling: fine-tuning with wrong targets for the forget set."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import Categorical, SearchRange
from unlearnkit.train.relabelling import Misleading, Passes, train_on_wrong_targets


@register
class Relabel(Recalibrated):
    """Train on retained rows as they are and on forget rows with wrong targets."""

    info = Info(
        title="Random relabelling",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933; Graves et al., arXiv:2010.10981",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For whole classes and mislabelled rows, as the baseline of methods with wrong targets."
            " For rows drawn at random there is little to forget. `relabel_restart` is ours and"
            " adds a restart."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with forget rows in the first 0.15 of the"
            " steps; published settings are presets",
            "both kinds of rows share a batch in proportion, as reference code does for its larger"
            " data; for its smaller data it takes passes in turn (preset `paper`), which batch"
            " normalisation does not bear: on digits images 0.03 of test accuracy is lost",
            "targets are never the true one (the paper's rule); reference code draws from all"
            " classes, so that one row in C keeps its label",
            "removed classes are never drawn, because a retrained model does not know them",
            "`runner_up` is ours: the original's own prediction without the true and the removed"
            " classes, as a soft target",
            "multilabel rows get flipped labels; regression rows get targets from a Gaussian with"
            " the training targets' mean and deviation",
        ),
        fails=(
            "a class of digits is pushed beyond what a model says that never knew it: memory shows,"
            " because the same run on models without the class ends elsewhere",
            "with uniform targets the model is unsure of forget rows in a way that retrained"
            " models are not, which membership attacks detect; with `early` at 1 all the more",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "targets": "uniform",
                "passes": "in turn",
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

    targets: Annotated[Misleading, Categorical(("uniform", "runner_up"))] = "uniform"
    """What forget rows are taught: a wrong target drawn anew for each batch, or the original's own
    answer (a distribution) without the true and the removed classes. Where outcomes do not
    exclude each other there is no runner-up, and targets are drawn."""

    early: Annotated[float, SearchRange(0, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, or of the epochs in turn, from the first, that have forget rows; at 1
    all, as published."""

    passes: Passes = "mixed"
    """Both kinds of rows in each batch, in proportion, or in turn: an epoch is a pass over the
    forget rows and then one over the retained."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How long and how fast to train."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Mix both kinds of rows, or take them in turn."""
        train_on_wrong_targets(p, self.targets, self.run, rt, early=self.early, passes=self.passes)
        return p.model
