"""Task vector: minus what fine-tuning on the forget set adds."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.language.adapters import LowRankAdapter, negated_adapter
from unlearnkit.language.language_method import ForgetSchedule
from unlearnkit.train.early_stopping import OFF, StopMonitor, StopRule, furthest, snapshot
from unlearnkit.train.loop import fit


@register
class TaskVector(Method):
    """Return ``theta - alpha (theta_ft - theta)``, with theta_ft trained on the forget set."""

    info = Info(
        title="Task vector",
        cite="Ilharco et al., ICLR 2023, arXiv:2212.04089",
        needs=frozenset({Need.FORGET, Need.LABELS}),
        uses=frozenset({Need.RETAIN, Need.VALIDATION}),
        tasks=TOKEN_TASKS,
        may_damage=True,
        when="Where the retain set is not at hand, for documents that say one thing.",
        differs=(
            "by default alpha is the largest, up to the given one, at which the retained loss is"
            " within its limit and the forget rows look no worse than validation rows",
        ),
        presets={
            "paper": {
                "alpha": 5.0,
                "guard": OFF,
                "run": ForgetSchedule.exact(optimizer="adamw", lr=1e-5, epochs=10, batch_size=32),
            }
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}, "guard": OFF},
    )

    alpha: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(5.0, ge=0, allow_inf_nan=False)
    """How far to go against the fine-tuning; 0 changes nothing."""

    run: ForgetSchedule = ForgetSchedule(lr=1.0, share=0.5)
    """The fine-tuning on the forget set."""

    guard: StopRule = StopRule(sample=128)
    """How far `alpha` may go."""

    peft_config: LowRankAdapter | None = None
    """Train a LoRA adapter alone (``peft.LoraConfig``, or its settings); all weights when None."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Fine-tune on the forget set, then go the other way."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None or not self.alpha:
            return p.model
        start = snapshot(p.model)
        fit(p.model, p.forget, p.task, recipe, rt, stream="task_vector/forget")
        tuned = snapshot(p.model)

        def put(alpha: float) -> None:
            with torch.no_grad():
                if hasattr(p.model, "peft_config"):
                    state = negated_adapter(start, tuned, alpha)
                else:
                    state = {n: t - alpha * (tuned[n] - t) for n, t in start.items()}
                for name, t in p.model.state_dict().items():
                    if name in state and t.is_floating_point():
                        t.copy_(state[name])

        put(self.alpha)
        if self.guard == OFF:
            return p.model
        watch = StopMonitor(self.guard, p, rt, "task_vector")

        def fine(share: float) -> bool:
            put(share * self.alpha)
            return watch.intact() and not watch.overshot()

        put(furthest(fine, steps=6) * self.alpha)
        return p.model
