"""Train on, with the rows that stay."""

from torch import nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import fit


@register
class FineTune(Method):
    """Descend on the retain loss alone and rely on catastrophic forgetting."""

    info = Info(
        title="Fine-tuning",
        cite="Golatkar et al., CVPR 2020, arXiv:1911.04933",
        needs=frozenset({Need.RETAIN}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    run: Tuning = Tuning(lr=1.0, share=0.15)
    """How long and how fast to train on."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend on the retain rows."""
        recipe = self.run.resolve(p.recipe)
        if recipe is not None:
            fit(p.model, p.retain, p.task, recipe, rt, stream="finetune/order")
        return p.model
