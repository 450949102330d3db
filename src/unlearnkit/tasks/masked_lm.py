"""Masked language models: the tokens behind masks, from those on both sides."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from unlearnkit.core.data import Batch, as_named_tensors
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.task import register_task
from unlearnkit.core.token_rows import IGNORED, TokenReader, Tokens
from unlearnkit.tasks.token_task import LEAK, TokenTask

SHARE = 0.15
"""Share of a text's tokens behind masks (Devlin et al., NAACL 2019, arXiv:1810.04805)."""


@dataclass(frozen=True)
class MaskedReader(TokenReader):
    """Reads texts and puts masks over what is to be predicted."""

    shift: ClassVar[int] = 0
    ends: ClassVar[tuple[str, ...]] = ("sep_token_id", "eos_token_id")

    def _tokens(self, row: Any, where: str) -> Tokens:
        whole = super()._tokens(row, where)
        if isinstance(row, Mapping) and "labels" in row:
            return whole
        mask = getattr(self.processing_class, "mask_token_id", None)
        if mask is None:
            raise InputError(
                f"{where}: the tokenizer has no mask token; give that of a masked language model,"
                " or rows with input_ids and labels"
            )
        special = set(getattr(self.processing_class, "all_special_ids", ()))
        places = [
            i
            for i, y in enumerate(whole.labels)
            if y != IGNORED and whole.ids[i] not in special
        ]  # fmt: skip
        if IGNORED not in whole.labels:
            # The same text has the same masks wherever it stands.
            rng = torch.Generator().manual_seed(zlib.crc32(str(whole.ids).encode()))
            order = torch.randperm(len(places), generator=rng).tolist()
            places = [places[i] for i in order[: max(1, round(SHARE * len(places)))]]
        hidden = set(places)
        return Tokens(
            [mask if i in hidden else t for i, t in enumerate(whole.ids)],
            [t if i in hidden else IGNORED for i, t in enumerate(whole.ids)],
        )


@register_task
class MaskedLM(TokenTask):
    """Sequences of T tokens, some behind masks; labels ``(B, T)`` are what stands behind these.

    Rows are those of ``CausalLM``. A text has masks over 15 % of its tokens, one at least, always
    the same ones: drawn anew at each step they would make a row's loss a random number. Of a prompt
    with a completion, or of a chat, every token of the answer is behind a mask. Rows with
    ``input_ids`` and ``labels`` are taken as they are.

    A model returns logits ``(B, T, V)`` for the label at the same place.
    """

    name = "masked_lm"
    kind = "masked language model"
    loader = "AutoModelForMaskedLM"
    reads = MaskedReader

    def check_kind(self, model: nn.Module, batch: Batch) -> None:
        """Refuse a model whose earlier outputs do not change with the last token."""
        x = as_named_tensors(batch.x)
        mask = x.get("attention_mask")
        last = batch.y.shape[1] - 1 if mask is None else int(mask[0].nonzero().max())
        change = self.change_of_token(model, batch, last)
        if last and float(change[last]) > LEAK and not bool(change[:last].any()):
            raise UnsupportedError(
                "the model's outputs at a place do not change with later tokens: it is a causal"
                " language model, not a masked one; give task='causal_lm'"
            )
