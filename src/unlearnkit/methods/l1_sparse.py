"""L1-sparse fine-tuning: descent on the retain loss with a sparsity penalty."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.schedule import LossTerms, StepExtras, run_schedule


@register
class L1Sparse(Recalibrated):
    """Descend on ``retain loss + penalty(epoch) * sum |weight|``, with a penalty that fades."""

    info = Info(
        title="L1-sparse fine-tuning",
        cite="Jia et al., NeurIPS 2023, arXiv:2304.04934",
        needs=frozenset({Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "As a stronger fine-tuning: small weights go to exact zeros, and the model loses what"
            " retained rows do not hold. It needs no forget rows. The result also compresses"
            " better."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs. The penalty acts as soft thresholds that fall to"
            " zero over the run and add up to 1.5 times the original's mean absolute weight,"
            " whatever the scale of the weights; published code adds a subgradient: preset `paper`",
            "epochs without penalty at the end are a share of the run; the code counts them, and"
            " where they are all of the run it penalises instead",
            "the code's own default of 0.2 destroys any model and is not a preset",
            "pruning first and unlearning afterwards, the other half of the paper, is not here",
        ),
        fails=(
            "at the published penalty it forgets what fine-tuning forgets: a class of digits keeps"
            " an accuracy of 0.97 with the preset `paper`, and of 0.5 with that penalty on the"
            " default schedule, where retraining has 0",
            "in a network with batch normalisation a class keeps an accuracy of 0.4: the scale of"
            " weights before it means nothing, so that small weights are no sign of little use",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "penalty": 5e-4,
                "step": "subgradient",
                "covers": "all",
                "run": FineTuneSchedule.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
                    augment="flip_crop",
                ),
            }
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    penalty: Annotated[float, SearchRange(0.2, 6, log=True)] = Field(1.5, ge=0, allow_inf_nan=False)
    """How strong the penalty is; 0 is fine-tuning. Proximal: all thresholds of the run added up, as
    a multiple of the original's mean absolute weight. Subgradient: weight of the sum of absolute
    values at the start (paper: gamma)."""

    step: Literal["subgradient", "proximal"] = "proximal"
    """How the penalty acts: by a soft threshold after each step, which falls linearly to zero over
    the run; or through the gradient (paper)."""

    covers: Literal["all", "weights"] = "weights"
    """Which parameters: all, or those with two dimensions or more (no biases, no scales)."""

    rest: float = Field(0.0, ge=0, le=1)
    """Share of the epochs at the end in which a subgradient has no penalty; 1 is fine-tuning."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How long and how fast to train on."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend, with a penalty that falls."""
        covered = [
            w
            for w in p.model.parameters()
            if w.requires_grad and (self.covers == "all" or w.ndim > 1)
        ]
        recipe = self.run.resolve(p.recipe)
        epochs = recipe.epochs if recipe else 1
        threshold = self.penalty * mean_size(covered) if self.step == "proximal" else 0.0

        def loss(keep: Batch, progress: float) -> LossTerms:
            fit = p.task.losses(p.task.outputs(p.model, keep), keep).mean()
            now = self.penalty_at(int(progress * epochs + 1e-9), epochs)
            if self.step == "proximal" or not now or not covered:
                return LossTerms(fit, fit)
            size = torch.stack([w.float().abs().sum() for w in covered]).sum()
            return LossTerms(fit, fit + now * size)

        def shrink(push: float) -> None:
            if threshold * push:
                with torch.no_grad():
                    for w in covered:
                        w.copy_(w.sign() * (w.abs() - threshold * push).clamp(min=0))

        run_schedule(
            p.model,
            p.retain,
            loss,
            self.run,
            p.recipe,
            rt,
            never_seen=p.task.never_seen,
            stream="retain",
            extra=StepExtras(after_step=shrink),
        )
        return p.model

    def penalty_at(self, epoch: int, epochs: int) -> float:
        """Return the penalty in an epoch, from 0: ``penalty * (1 - epoch / active)``, then 0."""
        active = epochs - round(self.rest * epochs)
        return self.penalty * (1 - epoch / active) if epoch < active else 0.0


def mean_size(tensors: list[nn.Parameter]) -> float:
    """Return the mean absolute value of all scalars of some tensors; 0 where there are none."""
    count = sum(t.numel() for t in tensors)
    total = sum(t.detach().double().abs().sum().item() for t in tensors)
    return total / count if count else 0.0
