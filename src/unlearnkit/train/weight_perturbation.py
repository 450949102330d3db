"""Shrink and perturb: a model's weights mixed with untrained ones."""

import torch

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Problem


def mix_with_untrained(p: Problem, share: float) -> None:
    """Mix trainable weights with untrained ones: ``(1 - share) * weights + share * untrained``.

    Shrink and perturb (Ash and Adams, NeurIPS 2020, arXiv:1910.08475). Buffers stay as they are.

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
    untrained = dict(p.fresh().named_parameters())
    with torch.no_grad():
        for name, w in p.model.named_parameters():
            if w.requires_grad:
                w.lerp_(untrained[name], share)
