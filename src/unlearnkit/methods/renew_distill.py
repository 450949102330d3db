"""Renewed start with the original as teacher: retained answers kept, the rest lost."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.features import teacher_outputs
from unlearnkit.train.relabelling import EXCLUDED
from unlearnkit.train.schedule import LossTerms, Run, StepExtras, WarmRestart, run_schedule
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class RenewDistill(Recalibrated):
    """Mix the weights with untrained ones, then learn the original's answers on the retain set."""

    info = Info(
        title="Renewed start, taught by the original",
        cite=(
            "this library; it joins shrink and perturb (Ash and Adams, NeurIPS 2020,"
            " arXiv:1910.08475) and distillation (Hinton et al., 2015, arXiv:1503.02531)"
        ),
        needs=frozenset({Need.RETAIN, Need.FRESH}),
        uses=frozenset({Need.CLASSES}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For whole classes in networks with batch normalisation, where test accuracy counts"
            " most. Never for rows that go without their class: it keeps their memory whole. It"
            " reads no target and no forget row."
        ),
        differs=(
            "it is ours: `shrink_perturb` with the original's answers in place of the labels. A"
            " removed class has no part in these: its logit is masked out of the teacher",
            "the training is a warm restart at the recipe's peak learning rate, falling to zero,"
            " for 0.18 of the cost of retraining, the teacher's own pass over the rows included",
            "the divergence is not multiplied by the squared temperature, which for SGD is a"
            " smaller rate",
        ),
        fails=(
            "rows that go without their whole class: nothing can be masked, and what the teacher"
            " learned from them is in its answers on their neighbours. Wrong labels of digits:"
            " memory (U-LiRA AUC) 1.00 at every `renew` up to 0.95; a random tenth 0.69 to 0.77,"
            " where the untouched model has 0.77 (docs/results/memory_table.md)",
            "a class of digits in a perceptron: memory 1.00 at `renew` 0.5 and 0.66 at 0.95, where"
            " labels (`shrink_perturb`) leave 0.55; with batch normalisation 0.73 at 0.5 with the"
            " test accuracy of retraining, and none at 0.9 with a short retraining's",
            "a removed class ends with other margins than those of retrained models, because no"
            " answer of the masked teacher leaves it any probability",
        ),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    renew: Annotated[float, SearchRange(0.1, 0.9)] = Field(0.2, ge=0, le=1)
    """Share of untrained weights that each parameter is mixed with at the start: 0 is none, 1
    starts from the untrained network."""

    temperature: Annotated[float, SearchRange(1, 4)] = Field(2.0, gt=0, allow_inf_nan=False)
    """Softens both answers before they are compared."""

    run: Run = WarmRestart(lr=1.0, shrink=0.0)
    """How long and how fast to train on: a warm restart, or a plain run (kind tuning)."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Mix, then descend on the divergence from the teacher's answers to retained rows."""
        mix_with_untrained(p, self.renew)
        own = self.run.resolve(p.recipe) if isinstance(self.run, FineTuneSchedule) else p.recipe
        if own is None:
            return p.model
        start = rt.cost.forward
        teacher = teacher_outputs(p.original, p.retain, p.task, rt, own)

        def loss(keep: Batch, progress: float) -> LossTerms:
            del progress
            goal = without_classes(teacher(keep), p)
            far = p.task.divergence(p.task.outputs(p.model, keep), goal, self.temperature)
            return LossTerms(far, far)

        run_schedule(
            p.model,
            p.retain,
            loss,
            self.run,
            p.recipe,
            rt,
            never_seen=p.task.never_seen,
            stream="retain",
            extra=StepExtras(before=rt.cost.forward - start),
        )
        return p.model


def without_classes(out: Tensor, p: Problem) -> Tensor:
    """Return outputs ``(B, K)`` in which removed classes have no probability.

    Where outcomes do not exclude each other they stay as they are.
    """
    if not p.removed_classes or p.task.log_probs(out[:1].detach()) is None:
        return out
    gone = torch.tensor(p.removed_classes, device=out.device)
    return out.index_fill(1, gone, EXCLUDED)
