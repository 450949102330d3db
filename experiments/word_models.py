"""A word tokenizer made in memory, and small untrained language models."""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<end>"


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words of some texts, made in memory."""
    split = pre_tokenizers.Whitespace()
    words = dict.fromkeys(w for t in texts for w, _ in split.pre_tokenize_str(t))
    vocabulary = {w: i for i, w in enumerate([END, "<unknown>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    inner.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unknown>", eos_token=END, pad_token=END
    )


def small_gpt2(
    vocabulary: int, *, width: int = 16, layers: int = 1, context: int = 64, seed: int = 0
) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 without dropout, in evaluation mode."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()
