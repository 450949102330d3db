"""A word tokenizer made in memory, and small untrained language models.

The libraries of language models take seconds to import, and all experiments are imported to be
listed: they are loaded where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<end>"


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words of some texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = dict.fromkeys(w for t in texts for w, _ in split.pre_tokenize_str(t))
    vocabulary = {w: i for i, w in enumerate([END, "<unknown>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    inner.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unknown>", eos_token=END, pad_token=END
    )


def small_gpt2(
    vocabulary: int, *, width: int = 64, layers: int = 2, context: int = 512
) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=context,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            loss_type="ForCausalLM",
        )
    )


def dump(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of models as JSON, one a line."""
    return "[\n" + ",\n".join(json.dumps(r) for r in runs) + "\n]\n"
