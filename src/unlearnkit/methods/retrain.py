"""Train again from scratch, without the rows that must go."""

import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import fit


@register
class Retrain(Method):
    """Train an untrained model on the retained rows with the model's own recipe: exact."""

    info = Info(
        title="Retraining",
        cite="Bourtoule et al., IEEE S&P 2021, arXiv:1912.03817, section II",
        needs=frozenset({Need.RETAIN, Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "When its cost can be paid: it is the definition that all others approximate."
            " For several seeds to compare with, use `oracle`, which keeps them."
        ),
        differs=(
            "layers that are frozen in the model keep their weights, because training did not set"
            " them; widely copied code resets only a model's direct children, which warm-starts"
            " the rest: here all trained weights and buffers are those of a fresh model",
        ),
        fails=(
            "one retrained model is one draw: its distance from another is the noise floor of any"
            " comparison",
        ),
    )

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Start over from a fresh model's weights and fit what stays."""
        _restart(p.model, p.fresh())
        fit(p.model, p.retain, p.task, p.recipe, rt, stream="retain")
        return p.model


def _restart(model: nn.Module, fresh: nn.Module) -> None:
    """Give a model the state of an untrained one, frozen parameters apart.

    Args:
        model: Changed in place.
        fresh: An untrained model of the same architecture.

    Raises:
        InputError: If the architectures differ.
    """
    own, new = model.state_dict(), fresh.state_dict()
    odd = sorted(set(own) ^ set(new)) or [n for n in own if own[n].shape != new[n].shape]
    if odd:
        raise InputError(
            f"retrain: fresh() builds another architecture, {odd[0]!r} differs; give the factory"
            " that built the model"
        )
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    with torch.no_grad():
        for name, t in own.items():
            if name not in frozen:
                t.copy_(new[name])
