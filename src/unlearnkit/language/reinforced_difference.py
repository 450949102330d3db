"""Reinforced difference: a model whose logits are corrected by a second model's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.errors import UnsupportedError


def generic_logits(base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """Return ``z_b - alpha relu(z_r - z_b)``: tokens that reinforcement made likelier lose.

    Eldan and Russinovich, 2023, arXiv:2310.02238, equation 1.

    Args:
        base: Logits of the model ``(..., V)``.
        reinforced: Of the model after more training on the forget set.
        alpha: How far to go; 0 changes nothing.

    Returns:
        Logits.
    """
    return base - alpha * (reinforced - base).relu()


class ReinforcedDifference(nn.Module):
    """Two models of one kind that answer as one, with ``generic_logits``.

    Both are run for each answer: it takes twice the time and memory. What the model hides is still
    in the weights of both.
    """

    def __init__(self, base: nn.Module, reinforced: nn.Module, alpha: float) -> None:
        """Take the models; ``alpha`` is a buffer, so that a saved state holds it."""
        super().__init__()
        self.alpha: Tensor
        self.base, self.reinforced = base, reinforced
        self.register_buffer("alpha", torch.tensor(float(alpha)))

    @property
    def config(self) -> Any:
        """Return the base model's configuration, where it has one."""
        return getattr(self.base, "config", None)

    def get_input_embeddings(self) -> Any:
        """Return the base model's embedding of tokens; None where it names none."""
        return getattr(self.base, "get_input_embeddings", lambda: None)()

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return what the base model returns, its logits corrected."""
        out, more = self.base(*args, **named), self.reinforced(*args, **named)
        alpha = float(self.alpha)
        if isinstance(out, Tensor):
            return generic_logits(out, more, alpha)
        out.logits = generic_logits(out.logits, more.logits, alpha)
        return out

    def generate(self, **named: Any) -> Any:
        """Return what the base model's ``generate`` does with the corrected logits.

        Args:
            **named: As of transformers, ``input_ids`` among them; no beams.

        Returns:
            Tokens.

        Raises:
            UnsupportedError: If the base model cannot generate.
        """
        base: Any = self.base
        if not hasattr(base, "generate"):
            raise UnsupportedError("generate: the base model has no generate of transformers")
        prompt = named.get("attention_mask", torch.ones_like(named["input_ids"]))

        def correct(ids: Tensor, scores: Tensor) -> Tensor:
            new = ids.shape[1] - prompt.shape[1]
            mask = torch.cat([prompt, prompt.new_ones(len(prompt), new)], 1)
            more = self.reinforced(input_ids=ids, attention_mask=mask).logits[:, -1]
            return generic_logits(scores, more.to(scores), float(self.alpha))

        return base.generate(**named, logits_processor=[correct])
