"""Gaussian-Amnesiac: fine-tuning with random real targets for forget rows."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.mixed_batches import train_mixed
from unlearnkit.train.relabelling import fixed_target_losses


@register
class GaussianAmnesiac(Recalibrated):
    """Give each forget row one random target, then train on all rows mixed."""

    info = Info(
        title="Gaussian-Amnesiac",
        cite="Tarun et al., ICML 2023, arXiv:2210.08196",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"regression"}),
        when=(
            "As a baseline for forgetting in regression. Forget rows drift to the mean target;"
            " for a range at one end of the targets that is a visible mark."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with forget rows in the first 0.15 of the"
            " steps; published code runs one or five epochs of Adam on all rows: the presets",
            "a step has a batch of retained rows and forget rows in proportion; published code"
            " shuffles the union of both",
            "no checkpoint is chosen; published code for text keeps the one with the best"
            " retained error, which cannot see whether anything was forgotten",
        ),
        fails=(
            "drawn targets can lie outside the range of the targets: `clip`, or `draw` at rows,"
            " keeps them inside",
            "under the absolute error the best prediction on forget rows is the mean target,"
            " whatever the row: noise with a known centre, not what a retrained model predicts",
            "with the preset `paper` little happens where batches are few: on 8x8 digits as"
            " numbers, 0 to 2 to forget, the forget error goes from 0.4 to 1.0 (retrained: 5.2)",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-3, epochs=1, batch_size=256),
            },
            "stsb": {
                "batch_norm": "keep",
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-3, epochs=5, batch_size=256),
            },
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    statistics: Literal["all", "retain"] = "all"
    """Whose targets give mean and deviation: all training rows, forget rows included
    (published code), or the retained rows."""

    draw: Literal["gaussian", "rows"] = "gaussian"
    """Each output from a Gaussian of its own (paper), or whole targets of rows at random, which
    keeps the ties between outputs of one row and the range."""

    clip: bool = False
    """Whether drawn targets stay between the smallest and the largest one."""

    early: Annotated[float, SearchRange(0.05, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, from the first, that have forget rows; at 1 all, as published."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How to train, forget rows mixed into the retained batches in proportion."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Draw the targets, then descend on retained and relabelled rows alike."""
        far = fixed_target_losses(p, self.random_targets(p, rt), rt)
        stream = "gaussian_amnesiac/forget"
        train_mixed(p, p.retain, self.run, p.task.losses, far, rt, early=self.early, stream=stream)
        return p.model

    def random_targets(self, p: Problem, rt: Runtime) -> Tensor:
        """Return one target for each forget row ``(n, K)`` (paper: algorithm 2).

        Raises:
            InputError: If all targets are equal, or are fewer than two: nothing can be drawn.
        """
        source = p.retain.y
        if self.statistics == "all":
            source = torch.cat([p.forget.y, source])
        if bool((source == source[:1]).all()):
            got = f"{len(source)} equal targets"
            raise InputError(
                f"gaussian_amnesiac: nothing can be drawn from targets without spread, got {got};"
                " give a case whose targets differ, or another method"
            )
        rng, count = rt.rng("gaussian_amnesiac/targets"), len(p.forget)
        if self.draw == "rows":
            return source[torch.randint(len(source), (count,), generator=rng).to(source.device)]
        noise = torch.randn(count, source.shape[1], generator=rng, dtype=torch.float64).to(source)
        y = source.mean(0) + source.std(0) * noise
        return y.clamp(source.amin(0), source.amax(0)) if self.clip else y
