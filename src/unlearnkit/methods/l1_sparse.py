"""Train on with the rows that stay, and let small weights fade."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import descend


@register
class L1Sparse(Method):
    """Descend on ``retain loss + penalty(epoch) * sum |weight|``, with a penalty that fades."""

    info = Info(
        title="L1-sparse fine-tuning",
        cite="Jia et al., NeurIPS 2023, arXiv:2304.04934",
        needs=frozenset({Need.RETAIN}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "As a stronger fine-tuning: the penalty makes the model let go of what retained rows"
            " do not hold. The result has smaller weights, which also compress better."
        ),
        differs=(
            "`step` at proximal shrinks weights to exact zeros; the published subgradient leaves"
            " them small",
            "epochs without penalty at the end are a share of the run; the code counts them, and"
            " where they are all of the run it penalises instead",
            "the code's own default of 0.2 destroys any model and is not a preset",
            "pruning first and unlearning afterwards, the other half of the paper, is not here",
        ),
        fails=(
            "at the published penalty forget rows keep an accuracy near 1 on small problems;"
            " a penalty large enough to forget costs accuracy on all rows",
        ),
        presets={
            "paper": {
                "penalty": 5e-4,
                "step": "subgradient",
                "run": Tuning.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
                    augment="flip_crop",
                ),
            }
        },
        smoke={"run": {"lr": 0.5, "share": 0.2}},
    )

    penalty: float = Field(2e-3, ge=0, allow_inf_nan=False)
    """Weight of the sum of absolute values at the start (paper: gamma); 0 is fine-tuning."""

    step: Literal["subgradient", "proximal"] = "subgradient"
    """How the penalty acts: through the gradient, or by a soft threshold of learning rate times
    penalty after each step."""

    covers: Literal["all", "weights"] = "all"
    """Which parameters: all, or those with two dimensions or more (no biases, no scales)."""

    rest: float = Field(0.0, ge=0, le=1)
    """Share of the epochs at the end that have no penalty; 1 is fine-tuning."""

    run: Tuning = Tuning(lr=1.0, share=0.15)
    """How the penalised loss is minimised."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend, with a penalty that falls by the epoch."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        covered = [
            w
            for w in p.model.parameters()
            if w.requires_grad and (self.covers == "all" or w.ndim > 1)
        ]
        now = 0

        def penalty() -> float:
            return self.penalty_at(now, recipe.epochs)

        def loss(keep: Batch) -> Tensor:
            fit = p.task.losses(p.task.outputs(p.model, keep), keep).mean()
            if self.step == "proximal" or not penalty() or not covered:
                return fit
            return fit + penalty() * torch.stack([w.float().abs().sum() for w in covered]).sum()

        def shrink(lr: float) -> None:
            if self.step == "proximal" and penalty():
                with torch.no_grad():
                    for w in covered:
                        w.copy_(w.sign() * (w.abs() - lr * penalty()).clamp(min=0))

        def turn(epoch: int) -> bool:
            nonlocal now
            now = epoch + 1
            return False

        descend(
            p.model,
            p.retain,
            loss,
            recipe,
            rt,
            stream="retain",
            after_step=shrink,
            after_epoch=turn,
        )
        return p.model

    def penalty_at(self, epoch: int, epochs: int) -> float:
        """Return the penalty in an epoch, from 0: ``penalty * (1 - epoch / active)``, then 0."""
        active = epochs - round(self.rest * epochs)
        return self.penalty * (1 - epoch / active) if epoch < active else 0.0
