"""Amnesiac relabelling: fine-tuning with one fixed wrong target for each forget row."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.mixed_batches import RowLosses, train_mixed
from unlearnkit.train.relabelling import fixed_target_losses


@register
class Amnesiac(Recalibrated):
    """Give each forget row one wrong target at random, then train on all rows mixed."""

    info = Info(
        title="Amnesiac relabelling",
        cite="Graves et al., AAAI 2021, arXiv:2010.10981; as in Chundawat et al., arXiv:2205.08096",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "As a baseline for forgetting classes: simple, and hard to beat there. The record of"
            " weight updates that gave the method its name is another method and needs hooks in"
            " training."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with forget rows in the first 0.15 of the"
            " steps; published baselines train for three epochs of Adam: preset `paper`",
            "a target is wrong once a row, and never the true class nor a removed one; published"
            " code for classes excludes the same",
            "a step has a batch of retained rows and forget rows in proportion; published code"
            " shuffles the union of both",
            "multilabel rows get flipped labels; regression rows get targets from a Gaussian with"
            " the training targets' mean and deviation",
        ),
        fails=(
            "with `early` at 1 the model becomes as sure of the wrong targets as training makes"
            " it, so that a random forget set is easy to recognise: its margins are 20 deviations"
            " below a retrained model's on digits, 4 by default",
            "a class is pushed beyond what a model says that never knew it",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-4, epochs=3, batch_size=256),
            }
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    early: Annotated[float, SearchRange(0.05, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, from the first, that have forget rows; at 1 all, as published."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How to train, forget rows mixed into the retained batches in proportion."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Draw the targets, then descend on retained and relabelled rows alike."""
        if len(p.forget):
            far, stream = wrong_label_losses(p, rt), "amnesiac/forget"
            train_mixed(
                p, p.retain, self.run, p.task.losses, far, rt, early=self.early, stream=stream
            )
        return p.model


def wrong_label_losses(p: Problem, rt: Runtime) -> RowLosses:
    """Return the loss of forget rows under wrong targets, drawn once a row."""
    removed = torch.tensor(p.removed_classes, dtype=torch.long)
    whole = Batch.of_targets(p.forget.y, p.forget.rows)
    wrong = p.task.wrong(whole, rt.rng("amnesiac/targets"), avoid=removed).y
    return fixed_target_losses(p, wrong, rt)
