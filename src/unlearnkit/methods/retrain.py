"""Retraining from scratch on the retain set."""

from torch import nn

from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.train.loop import fit


@register
class Retrain(Method):
    """Train an untrained model on the retained rows with the model's own recipe: exact."""

    info = Info(
        title="Retraining",
        cite="Bourtoule et al., IEEE S&P 2021, arXiv:1912.03817, section II",
        needs=frozenset({Need.RETAIN, Need.FRESH, Need.LABELS}),
        tasks=frozenset({"classification", "multilabel", "regression"}) | TOKEN_TASKS,
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
        exact=(
            "layers that are frozen in the model hold nothing of the removed rows",
            "settings, such as the number of epochs, were not chosen with the removed rows",
            "nothing else that the model rests on was fitted on the removed rows: no feature"
            " extractor, scaling or selection of columns",
            "what is known of a removed row from elsewhere, such as from near-copies among the rows"
            " that stay, is not removed",
            "whoever compares models from before and after a request learns more than from one of"
            " them",
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
