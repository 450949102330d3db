"""Passage reader: classes from a text and from labelled texts like it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlearnkit.core.runtime import Runtime
from unlearnkit.retrieval.retrieval_store import Passages


class HashedWords(nn.Module):
    """Text retriever that is fitted to nothing: unit-length random projection of word counts.

    Inner products are near the cosine similarity of the counts. Texts are numbers of words
    ``(B, T)``, in 1 to ``words`` - 1; 0 is no word.

    Args:
        words: Numbers that a word may have.
        width: Numbers of an embedding, D.
        seed: Of the projection.
    """

    weight: Tensor

    def __init__(self, words: int, width: int = 128, seed: int = 0) -> None:
        super().__init__()
        rng = Runtime(seed=seed).rng("retrieval/words")
        weight = torch.randn(words, width, generator=rng) / width**0.5
        weight[0] = 0
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``(B, D)``."""
        return nn.functional.normalize(self.weight[x].sum(1), dim=1)


class PassageReader(nn.Module):
    """Classes from a text and from labelled passages: the mean over passages of their scores.

    ``s_c = own_c(q) + 1/n sum_j g(q, p_j) [y_j = c]`` with ``g`` the likeness of the encoded text
    and passage, learned. The mean over passages is that of RAML (Li et al., arXiv:2309.04979), with
    labelled passages; without any, the text alone is read.

    Args:
        words: Numbers that a word may have; 0 is no word.
        classes: C.
        width: Numbers of an encoded text.
    """

    def __init__(self, words: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.classes = classes
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.own = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
        self.like = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor, passages: Passages) -> Tensor:
        """Return logits ``(B, C)`` of texts ``(B, T)``."""
        read = self.read(x)
        own: Tensor = self.own(read)
        if not passages.x.shape[1]:
            return own
        texts = self.read(passages.x)
        one, other = (nn.functional.normalize(self.like(t), dim=-1) for t in (read, texts))
        score = torch.einsum("bw,bkw->bk", one, other) + passages.similarity
        score = torch.where(passages.there, self.scale * score, 0.0)
        votes = nn.functional.one_hot(passages.y, self.classes).to(own.dtype)
        count = passages.there.sum(1, keepdim=True).clamp(min=1)
        return own + torch.einsum("bk,bkc->bc", score, votes) / count

    def read(self, x: Tensor) -> Tensor:
        """Return the mean over the words of texts ``(..., T)``: ``(..., width)``."""
        count = (x > 0).sum(-1, keepdim=True).clamp(min=1)
        mean: Tensor = self.words(x).sum(-2) / count
        return mean
