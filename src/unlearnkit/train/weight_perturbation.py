"""Shrink and perturb: a model's weights mixed with untrained ones."""

from collections.abc import Collection

import torch
from torch import nn

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Problem


def mix_with_untrained(p: Problem, share: float, held: Collection[nn.Module] = ()) -> None:
    """Mix trainable weights with untrained ones: ``(1 - share) * weights + share * untrained``.

    Shrink and perturb (Ash and Adams, NeurIPS 2020, arXiv:1910.08475). Buffers stay as they
    are; at a share of 1 those of layers that are trained are the untrained network's, so that
    nothing of the model is left.

    Args:
        p: Its model is changed in place; parameters that do not require gradients stay.
        share: Of untrained weights, from 0 to 1.
        held: Modules whose buffers stay.

    Raises:
        UnsupportedError: If the case gives no untrained model.
    """
    if not share:
        return
    if p.build is None:
        raise UnsupportedError(
            "renew: mixes in untrained weights, and the case gives no model factory; give"
            " Case(fresh=make_model), or renew 0"
        )
    fresh = p.fresh()
    untrained = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, w in p.model.named_parameters():
            if w.requires_grad:
                w.lerp_(untrained[name], share)
        if share == 1:
            _copy_buffers(p.model, fresh, held)


def _copy_buffers(model: nn.Module, fresh: nn.Module, held: Collection[nn.Module]) -> None:
    """Give a model another's buffers, but for layers that are held or frozen as a whole."""
    for mine, other in zip(model.modules(), fresh.modules(), strict=True):
        own = list(mine.parameters(recurse=False))
        if mine not in held and (not own or any(w.requires_grad for w in own)):
            theirs = dict(other.named_buffers(recurse=False))
            for name, t in mine.named_buffers(recurse=False):
                t.copy_(theirs[name])
