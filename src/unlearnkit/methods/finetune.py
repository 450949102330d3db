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
        when=(
            "As the comparison that every other method must beat at equal cost."
            " Not where forgetting matters: nothing in it looks at the forget rows."
        ),
        differs=(
            "no rows, rates or lengths are taken from a paper by default: the learning rate is a"
            " multiple of the recipe's and the length a share of it, because published values do"
            " not carry over",
            "batch normalisation follows the data; one published small-scale script freezes it and"
            " pulls weights towards the original",
        ),
        fails=(
            "at published rates the forget rows keep an accuracy near 1 where retraining has 0"
            " (class requests)",
        ),
        presets={
            "paper": {
                "run": Tuning.exact(
                    lr=0.01,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=10,
                    batch_size=256,
                    augment="flip_crop",
                )
            },
            "reference": {"run": Tuning.exact(lr=0.01, momentum=0.0, epochs=10, batch_size=128)},
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    run: Tuning = Tuning(lr=1.0, share=0.15)
    """How long and how fast to train on; a rate or a length of 0 changes nothing."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend on the retained rows."""
        recipe = self.run.resolve(p.recipe)
        if recipe is not None:
            fit(p.model, p.retain, p.task, recipe, rt, stream="retain")
        return p.model
