"""Sequence to sequence: an encoder reads the prompt, a decoder says the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from unlearnkit.core.data import Batch, TensorData
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.task import register_task
from unlearnkit.core.token_rows import IGNORED, TokenReader, Tokens, TooLong, pad_rows, token_data
from unlearnkit.tasks.token_task import TokenTask


@dataclass(frozen=True)
class PairReader(TokenReader):
    """Reads prompts for the encoder and completions for the decoder."""

    shift: ClassVar[int] = 0
    keeps_prompt_end: ClassVar[bool] = True

    start: int | None = None
    """What the decoder reads before its first token; the tokenizer's padding when None, as of T5.
    """

    def rows_of(self, parts: Sequence[Tokens], name: str) -> TensorData:
        """Return rows of ``input_ids``, ``attention_mask`` and ``decoder_input_ids``."""
        split = [_sides(p) for p in parts]
        bad = next((i for i, (prompt, _) in enumerate(split) if not prompt.ids), None)
        if bad is not None:
            raise InputError(
                f"{name}: row {bad} has no prompt for the encoder; give prompt and completion, as"
                " columns or as JSON lines"
            )
        told = token_data([answer for _, answer in split], self._pad(), name, shift=0)
        said, mask = pad_rows([prompt.ids for prompt, _ in split], self._pad())
        start = self._pad() if self.start is None else self.start
        before = torch.where(told.y == IGNORED, self._pad(), told.y)[:, :-1]
        first = torch.full((len(parts), 1), start)
        x = {
            "input_ids": said,
            "attention_mask": mask,
            "decoder_input_ids": torch.cat([first, before], 1),
        }
        return TensorData(x, told.y)

    def _length(self, whole: Tokens) -> int:
        return max(len(side.ids) for side in _sides(whole))

    def _pieces(self, whole: Tokens, limit: int | None, how: TooLong) -> Sequence[Tokens]:
        """Return a pair whose sides are cut."""
        prompt, answer = _sides(whole)
        return [
            Tokens(
                prompt.ids[:limit] + answer.ids[:limit],
                prompt.labels[:limit] + answer.labels[:limit],
            )
        ]


def _sides(whole: Tokens) -> tuple[Tokens, Tokens]:
    """Return what comes before the first label, and the rest."""
    first = next((i for i, t in enumerate(whole.labels) if t != IGNORED), len(whole.labels))
    return (
        Tokens(whole.ids[:first], whole.labels[:first]),
        Tokens(whole.ids[first:], whole.labels[first:]),
    )


@register_task
class Seq2SeqLM(TokenTask):
    """Prompts of S tokens and answers of T; labels ``(B, T)`` are the answers', -100 elsewhere.

    Rows of a case are mappings (also as a table) with ``prompt`` and ``completion``, or with
    ``messages``, or with ``input_ids`` and ``labels`` where what comes before the first label is
    the prompt. Also inputs ``{"input_ids", "attention_mask", "decoder_input_ids"}`` with labels.
    Prompts and answers that are too long are cut, each to ``max_length``.

    A model returns logits ``(B, T, V)`` of its decoder for the label at the same place: the
    decoder's inputs are the labels one place later, behind ``decoder_start``.
    """

    name = "seq2seq"
    kind = "sequence-to-sequence model"
    loader = "AutoModelForSeq2SeqLM"
    in_place = False
    reads = PairReader

    def __init__(
        self, vocabulary: int | None = None, *, decoder_start: int | None = None, **more: Any
    ) -> None:
        """Take what ``CausalLM`` takes, and the token that the decoder starts from.

        Args:
            vocabulary: Tokens, V; the tokenizer's when None.
            decoder_start: ``model.config.decoder_start_token_id``; the tokenizer's padding when
                None, as of T5.
            **more: As of ``CausalLM``.
        """
        super().__init__(vocabulary, **more)
        r = self.reader
        self.reader = PairReader(r.processing_class, r.max_length, r.too_long, decoder_start)

    def check_kind(self, model: nn.Module, batch: Batch) -> None:
        """Refuse a model without a decoder, and one whose decoder starts from another token."""
        config = getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", True) is False:
            raise UnsupportedError(
                "the model is no encoder with a decoder; give task='causal_lm' or 'masked_lm', or"
                " load it with AutoModelForSeq2SeqLM"
            )
        start = getattr(config, "decoder_start_token_id", None)
        first = int(batch.x["decoder_input_ids"][0, 0]) if isinstance(batch.x, dict) else start
        if start is not None and start != first:
            raise InputError(
                f"the model's decoder starts from token {start}, and the rows from {first}; give"
                f" Seq2SeqLM(processing_class=..., decoder_start={start})"
            )
