"""Relabelling restart: a warm restart whose early batches hold forget rows with wrong targets."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import Categorical, SearchRange
from unlearnkit.train.relabelling import Misleading, train_on_wrong_targets
from unlearnkit.train.schedule import WarmRestart
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class RelabelRestart(Recalibrated):
    """Train on retained rows at a high rate that falls; early batches hold relabelled rows."""

    info = Info(
        title="Warm restart with wrong targets",
        cite="this library; it joins relabelling, a warm restart, and shrink and perturb",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For whole classes, where answers like a retrained model's are wanted at a fifth of the"
            " cost: targets at runner_up are what it would predict there. Where memory counts,"
            " take `shrink_perturb`."
        ),
        differs=(
            "it is ours, and was the default of `relabel` before: a warm restart at twice the"
            " recipe's peak learning rate, for 0.18 of the cost of retraining, in which all"
            " parameters shrink by exp(-0.5). Forget rows with wrong targets are in its first 0.15,"
            " mixed into the retained batches in proportion",
            "`runner_up` is the original's own prediction without the true and the removed classes,"
            " as a soft target; removed classes are never drawn either, because a retrained model"
            " does not know them",
            "`renew` is after shrink and perturb (Ash and Adams, NeurIPS 2020, arXiv:1910.08475):"
            " the run starts between the model's weights and untrained ones",
            "wrong targets can replace the shrink: with shrink 0 they close 0.97 of the"
            " Jensen-Shannon distance to retraining for a class of digits and 0.93 for a"
            " mislabelled tenth, 0.98 and 0.95 with it",
        ),
        fails=(
            "a class of digits is pushed beyond what a model says that never knew it: memory shows"
            " by a mean margin 21 deviations below the placebo's",
            "on a random tenth of digits the default closes 0.48 of the distance to retraining,"
            " without shrink 0.74",
        ),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    targets: Annotated[Misleading, Categorical(("uniform", "runner_up"))] = "runner_up"
    """What forget rows are taught: a wrong target drawn anew for each batch, or the original's own
    answer (a distribution) without the true and the removed classes. Where outcomes do not
    exclude each other there is no runner-up, and targets are drawn."""

    early: Annotated[float, SearchRange(0, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, from the first, that have forget rows."""

    run: WarmRestart = WarmRestart()
    """How long and how fast to train on both kinds of rows, and how much weights shrink."""

    renew: float = Field(0.0, ge=0, le=1)
    """Share of untrained weights that each parameter is mixed with at the start: 0 is none, 1
    starts afresh. Above 0 the case must give a model factory."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Mix the weights with untrained ones, then both kinds of rows in every early batch."""
        mix_with_untrained(p, self.renew)
        train_on_wrong_targets(p, self.targets, self.run, rt, early=self.early)
        return p.model
