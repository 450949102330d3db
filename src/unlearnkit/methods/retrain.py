"""Retraining from scratch on the retain set."""

from torch import nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import fit


@register
class Retrain(Method):
    """Train an untrained model on the retained rows with the model's own recipe: exact."""

    info = Info(
        title="Retraining",
        cite="Bourtoule et al., IEEE S&P 2021, arXiv:1912.03817, section II",
        needs=frozenset({Need.RETAIN, Need.FRESH, Need.LABELS}),
        tasks=frozenset({"causal_lm", "classification", "multilabel", "regression"}),
        may_damage=True,
        replaces=True,
        when=(
            "When its cost can be paid: it is the definition that all others approximate."
            " For several seeds to compare with, use `oracle`, which keeps them."
        ),
        differs=(
            "layers that are frozen in the model keep their weights, because training did not set"
            " them; widely copied code resets only a model's direct children, which warm-starts"
            " the rest: here all trained weights and buffers are those of a fresh model",
            "running statistics of batch normalisation are those of its training, as an oracle's"
            " are: other methods measure them anew on retained rows",
        ),
        fails=(
            "one retrained model is one draw: its distance from another is the noise floor of any"
            " comparison",
        ),
    )

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Fit the retain set, from a fresh model."""
        model = p.fresh()
        if p.train is not None:
            p.train(model, p.retain)
        else:
            fit(model, p.retain, p.task, p.recipe, rt, stream="retain")
        return model
