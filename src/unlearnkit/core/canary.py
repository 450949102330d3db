"""Canary: a secret planted in a training text, among the strings that it could have been."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearnkit.core.data import TensorData
from unlearnkit.core.hidden_targets import no_targets
from unlearnkit.core.runtime import Runtime

MOST_STRINGS = 10**6
"""Most strings that the secret could have been for all to be ranked; beyond, some are drawn."""

DRAWN = 10_000
"""Candidates that are drawn where there are too many to rank all."""


@dataclass(frozen=True)
class CandidateRows(TensorData):
    """Contexts of candidates, each read once: inputs ``(M, T)``, no targets."""

    contexts: Tensor = field(kw_only=True)
    """The row of each position of each candidate ``(R, L)``; candidate 0 is the secret."""

    tokens: Tensor = field(kw_only=True)
    """The token of each position of each candidate ``(R, L)``."""

    possible: float = field(kw_only=True)
    """Binary logarithm of the number of strings that the secret could have been, in bits."""

    @property
    def complete(self) -> bool:
        """Return whether every string is among the candidates."""
        return len(self.tokens) == round(2**self.possible)


@dataclass(frozen=True)
class Canary:
    """A secret after a known prefix (Carlini et al., USENIX Security 2019, arXiv:1802.08232)."""

    prefix: tuple[int, ...]
    """Tokens before the secret."""

    secret: tuple[int, ...]
    """Its tokens, L of them."""

    alphabet: tuple[int, ...]
    """Tokens that may stand at each position of the secret, all equally likely."""

    def candidates(self, window: int, rt: Runtime, *, most: int = MOST_STRINGS) -> CandidateRows:
        """Return what a model that predicts the token after a window must read to rank the secret.

        Args:
            window: Tokens of a window, T; at most as many as the prefix has.
            rt: Draws candidates where not all are ranked.
            most: Most strings for all to be ranked.

        Returns:
            The secret, then every other string, or 10,000 that are drawn.
        """
        length, letters = len(self.secret), torch.tensor(self.alphabet)
        places = torch.tensor([self.alphabet.index(t) for t in self.secret])
        possible = length * math.log2(len(letters))
        if len(letters) ** length <= most:
            picks, contexts, starts = _tree(places, len(letters))
        else:
            rng = rt.rng("canary/candidates")
            drawn = torch.randint(len(letters), (DRAWN, length), generator=rng)
            picks = torch.cat([places[None], drawn])
            starts = [picks[:, :i] for i in range(length)]
            contexts = torch.arange(length * len(picks)).view(length, -1).mT
        prefix = torch.tensor(self.prefix)
        texts = [torch.cat([prefix.expand(len(s), -1), letters[s]], 1) for s in starts]
        x = torch.cat([text[:, -window:] for text in texts])
        return CandidateRows(
            x, no_targets(len(x)), contexts=contexts, tokens=letters[picks], possible=possible
        )

    def sequences(self, rt: Runtime, *, plain: bool) -> CandidateRows:
        """Return prefix and candidate as rows of tokens, with labels on the candidate alone.

        Args:
            rt: Draws candidates where not all are ranked.
            plain: Whether inputs are the tokens alone, without an attention mask.

        Returns:
            The secret, then every other string, or 10,000 that are drawn.
        """
        found = self.candidates(1, rt, most=DRAWN)
        prefix = torch.tensor(self.prefix).expand(len(found.tokens), -1)
        ids = torch.cat([prefix, found.tokens], 1)
        labels = torch.cat([torch.full_like(prefix, -100), found.tokens], 1)
        x = ids if plain else {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return CandidateRows(
            x, labels, contexts=found.contexts, tokens=found.tokens, possible=found.possible
        )


def _tree(places: Tensor, width: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return every string of L letters, as numbers below ``width``, one of them first.

    Args:
        places: The one that comes first ``(L,)``.
        width: Number of letters, A.

    Returns:
        The strings ``(R, L)``; the row of each position's context ``(R, L)``; and the contexts,
        all beginnings of i letters ``(A^i, i)`` for each i below L, in the order of the rows.
    """
    length = len(places)
    powers = width ** torch.arange(length - 1, -1, -1)
    own = int((places * powers).sum())
    number = torch.arange(width**length)
    number = torch.cat([number[own : own + 1], number[:own], number[own + 1 :]])
    picks = number[:, None] // powers % width
    first = torch.tensor([sum(width**j for j in range(i)) for i in range(length)])
    contexts = number[:, None] // (powers * width) + first
    starts = [
        torch.arange(width**i)[:, None] // width ** torch.arange(i - 1, -1, -1) % width
        for i in range(length)
    ]
    return picks, contexts, starts
