"""Retrieval-augmented model: a reader that looks rows up in a store."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.retrieval.retrieval_store import RetrievalStore, StoreDeletion, stored_rows

ASSUMPTIONS = (
    "the retriever was trained without any row of the store",
    "copies of a forget row that the request does not name stay",
    "the reader's weights were trained on rows together with what the store held then: they are"
    " judged by the audit alone",
)


class RetrievalModel(nn.Module):
    """A reader that answers from its weights and from rows that a store holds near the input.

    While it is trained, a row does not retrieve itself: rows with the very same input are left out.

    Args:
        retriever: Embeds inputs ``(B, ...)`` as ``(B, D)``; frozen, and always in eval mode.
        reader: From inputs and ``Passages`` to outputs ``(B, C)``; this is what is trained.
        store: The rows.
        neighbours: Rows that the reader gets for an input, K.

    Raises:
        InputError: If the store was made by another retriever, or has fewer places than ``K``.
    """

    def __init__(
        self,
        retriever: nn.Module,
        reader: nn.Module,
        store: RetrievalStore,
        *,
        neighbours: int = 5,
    ) -> None:
        super().__init__()
        if not 1 <= neighbours <= len(store.x):
            raise InputError(
                f"neighbours: must be in 1 to {len(store.x)}, the store's capacity, got"
                f" {neighbours}"
            )
        store.check_made_by(retriever)
        self.retriever, self.reader, self.store = retriever.requires_grad_(False), reader, store
        self.neighbours = neighbours
        self.retriever.eval()

    def train(self, mode: bool = True) -> Self:
        """Put the reader in train mode, or all in eval mode."""
        super().train(mode)
        self.retriever.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``(B, C)`` of inputs ``(B, ...)``."""
        with torch.no_grad():
            query = self.retriever(x)
            passages = self.store.nearest(query, self.neighbours, x if self.training else None)
        out: Tensor = self.reader(x, passages)
        return out

    def forget(self, forget: View, corrections: View | None = None) -> StoreDeletion:
        """Delete rows from the store, where it holds them; weights stay as they are.

        Args:
            forget: The rows.
            corrections: Rows that take their place, where rows are corrected.

        Returns:
            What was deleted, and what was left.
        """
        self.store.check_made_by(self.retriever)
        done = self.store.delete(*self._rows(forget), absent="skip")
        if corrections is not None:
            self.store.add(self.retriever, *self._rows(corrections))
        return done

    def with_store(self, store: RetrievalStore) -> RetrievalModel:
        """Return the model with a copy of another store, weights shared."""
        held = RetrievalStore(len(store.x), store.embeddings.shape[1], store.x[0], store.y[0])
        held.to(store.x.device).load_state_dict(store.state_dict())
        model = RetrievalModel(self.retriever, self.reader, held, neighbours=self.neighbours)
        return model.train(self.training)

    def _rows(self, view: View) -> tuple[Tensor, Tensor]:
        x, y = stored_rows(view)
        return x.to(self.store.x.device), y.to(self.store.y.device)


def store_statement(
    original: nn.Module, model: nn.Module, forget: View, corrections: View | None, source: str
) -> EvidenceStatement | None:
    """Return the statement that a store is the one without the forget rows, after a check of it.

    Args:
        original: The model before.
        model: The model after.
        forget: The rows that went.
        corrections: Rows that took their place.
        source: What unlearned the model.

    Returns:
        The statement; None if a model has no store, or the store is another one.
    """
    if not isinstance(original, RetrievalModel) or not isinstance(model, RetrievalModel):
        return None
    wanted = original.with_store(original.store)
    done = wanted.forget(forget, corrections)
    if wanted.store.digest != model.store.digest:
        return None
    left = f"; {done.copies_left} copies of forget rows stay in it" * bool(done.copies_left)
    return EvidenceStatement(
        kind="exact",
        statement="the retrieval store holds no forget row: it equals, bit for bit, the store that"
        f" is built without them{left}. The weights of the reader are not covered",
        assumptions=ASSUMPTIONS,
        source=f"digest of the store after {source}",
        numbers={"rows deleted": done.rows, "copies left": done.copies_left},
    )
