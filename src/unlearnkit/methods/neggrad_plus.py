"""NegGrad+: ascend on the forget set, descend on the retain set."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.early_stopping import cap_losses
from unlearnkit.train.schedule import LossTerms, StepExtras, early_batches, run_schedule


@register
class NegGradPlus(Recalibrated):
    """Descend on ``(1 - balance) * retain loss - balance * forget loss``."""

    info = Info(
        title="NegGrad+",
        cite="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        when=(
            "For classes: of the published methods it leaves the least memory of a class in a"
            " network with batch normalisation, at no loss of accuracy. For rows drawn at random"
            " there is little to forget."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with the forget term in the first 0.15 of"
            " the steps; published settings are presets",
            "balance is the weight of the forget term, the paper's 1 - beta: 0 is fine-tuning",
            "each forget row's loss is capped, because its negative has no lower bound; `cap` of"
            " infinity is the published rule",
            "forget batches come in a new order and with new augmentation each time round;"
            " published code caches the first round",
            "as published, forget and retain batches go through the model one after the other, so"
            " that batch normalisation follows both",
        ),
        fails=(
            "the preset `paper` leaves a forgotten class of digits at an accuracy of 0.96 where"
            " retraining has 0",
            "on a class of digits, perceptron, memory stays: the margins of the class fall below"
            " those of models that never knew it",
            "without a cap and with a balance of 0.05 or more the forget loss diverges and ruins"
            " the retained rows too",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "balance": 0.05,
                "run": FineTuneSchedule.exact(lr=0.01, momentum=0.0, epochs=10, batch_size=64),
                "cap": float("inf"),
                "early": 1.0,
            },
            "reference": {
                "batch_norm": "keep",
                "balance": 0.0001,
                "run": FineTuneSchedule.exact(lr=0.01, momentum=0.0, epochs=5, batch_size=64),
                "cap": float("inf"),
                "early": 1.0,
            },
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    balance: Annotated[float, SearchRange(0.003, 0.5, log=True)] = Field(0.1, ge=0, le=1)
    """Weight of the forget term (paper: 1 - beta); 0 is fine-tuning, 1 is ascent alone."""

    cap: Annotated[float, SearchRange(0.5, 4, log=True)] = Field(1.0, gt=0)
    """Loss at which a forget row no longer counts, as a multiple of the loss of a model without
    knowledge; infinity is no cap."""

    early: Annotated[float, SearchRange(0, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, from the first, that have the forget term; at 1 all, as published."""

    forget_batch: int | None = Field(None, ge=1)
    """Rows in a forget batch, of which each early step draws one; the run's batch size when
    None."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How long and how fast the weighted loss is minimised."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Draw a forget batch with each early retain batch."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        early = self.early if self.balance else 0.0
        size = min(self.forget_batch or recipe.batch_size, len(p.forget))
        draw = early_batches(p.forget, size, early, recipe, rt, stream="neggrad_plus/forget")

        def loss(keep: Batch, progress: float) -> LossTerms:
            drop = draw(progress)
            stay = p.task.losses(p.task.outputs(p.model, keep), keep).mean()
            if drop is None:
                return LossTerms(stay, stay)
            go = cap_losses(p.task.losses(p.task.outputs(p.model, drop), drop), self.cap, p.task)
            return LossTerms(stay, (1 - self.balance) * stay - self.balance * go.mean())

        run_schedule(
            p.model,
            p.retain,
            loss,
            self.run,
            p.recipe,
            rt,
            never_seen=p.task.never_seen,
            stream="retain",
            extra=StepExtras(rows=size, share=early),
        )
        return p.model
