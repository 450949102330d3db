"""Causal language models: the next token of every place."""

from __future__ import annotations

from torch import nn

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.task import register_task
from unlearnkit.core.token_rows import IGNORED
from unlearnkit.tasks.token_task import LEAK, TokenTask


@register_task
class CausalLM(TokenTask):
    """Sequences of T tokens; labels ``(B, T)`` are the tokens themselves, -100 where none counts.

    Rows of a case are texts, ``Documents``, or mappings (also as a table) with ``text``, with
    ``prompt`` and ``completion``, with ``messages``, of which only what the assistant says has
    labels, or with ``input_ids``, ``labels`` and ``attention_mask``. Also pairs of tensors.

    A model returns logits ``(B, T, V)``; those at place t are for the label at t + 1. Outputs of
    the task are the log-odds of each label: see ``TokenTask``.
    """

    name = "causal_lm"
    kind = "causal language model"
    loader = "AutoModelForCausalLM"
    shift = 1

    def check_kind(self, model: nn.Module, batch: Batch) -> None:
        """Refuse a model whose earlier outputs change with a later token, as an encoder's do."""
        last = int((batch.y[0] != IGNORED).nonzero().max())
        change = self.change_of_token(model, batch, last)[:last]
        if len(change) and float(change.max()) > LEAK:
            raise UnsupportedError(
                "the model's outputs at a place change with later tokens: it is an encoder, not a"
                " causal language model; load it with AutoModelForCausalLM, as a decoder, or give"
                " task='masked_lm'"
            )
