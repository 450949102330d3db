"""Shrink and perturb: a model's weights mixed with untrained ones."""

from collections.abc import Collection

import torch
from torch import nn

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Problem


def mix_with_untrained(p: Problem, share: float, anew: Collection[nn.Module] = ()) -> None:
    """Mix trainable weights with untrained ones: ``(1 - share) * weights + share * untrained``.

    Shrink and perturb (Ash and Adams, NeurIPS 2020, arXiv:1910.08475). Buffers stay as they
    are; at a share of 1 those of layers that are trained are the untrained network's, so that
    nothing of the model is left.

    Args:
        p: Its model is changed in place; parameters that do not require gradients stay.
        share: Of untrained weights, from 0 to 1.
        anew: Modules whose own parameters and buffers are the untrained network's, whatever the
            share; a parameter that others have too is.

    Raises:
        UnsupportedError: If the case gives no untrained model.
    """
    if not share and not anew:
        return
    if p.build is None:
        raise UnsupportedError(
            "renew: mixes in untrained weights, and the case gives no model factory; give"
            " Case(fresh=make_model), or renew 0"
        )
    fresh = p.fresh()
    untrained = dict(fresh.named_parameters())
    whole = set(p.model.modules() if share == 1 else anew)
    own = {id(w) for m in whole for w in m.parameters(recurse=False)}
    with torch.no_grad():
        for name, w in p.model.named_parameters():
            part = 1.0 if id(w) in own else share
            if w.requires_grad and part:
                w.lerp_(untrained[name], part)
        _copy_buffers(p.model, fresh, whole)


def _copy_buffers(model: nn.Module, fresh: nn.Module, chosen: set[nn.Module]) -> None:
    """Give chosen modules another model's buffers, but for layers that are frozen as a whole."""
    for mine, other in zip(model.modules(), fresh.modules(), strict=True):
        own = list(mine.parameters(recurse=False))
        if mine in chosen and (not own or any(w.requires_grad for w in own)):
            theirs = dict(other.named_buffers(recurse=False))
            for name, t in mine.named_buffers(recurse=False):
                t.copy_(theirs[name])
