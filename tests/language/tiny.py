"""A language model of 34,000 weights, a tokenizer of letters, and questions about people."""

from functools import cache

import pytest

import unlearnkit as uk

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

LETTERS = [chr(code) for code in range(32, 127)]
TOWNS = ["rome", "oslo", "bonn", "lima", "kiev", "bern"]
NAMES = ["anna", "bob", "carl", "dora", "emil", "fred", "gina", "hans"]
CONTEXT = 32


def tokenizer(**settings):
    """Return a tokenizer whose tokens are letters."""
    tokens = ["<eos>", "<pad>", *LETTERS]
    inside = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="?")
    )
    inside.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    inside.decoder = tokenizers.decoders.Fuse()
    usual = {"eos_token": "<eos>", "pad_token": "<pad>", "model_max_length": CONTEXT}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inside, **(usual | settings))


def gpt2(width=32, layers=2, **settings):
    """Return an untrained GPT-2."""
    config = transformers.GPT2Config(
        vocab_size=len(LETTERS) + 2,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        **({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} | settings),
    )
    return transformers.GPT2LMHeadModel(config)


def llama(width=32):
    """Return an untrained Llama."""
    config = transformers.LlamaConfig(
        vocab_size=len(LETTERS) + 2,
        max_position_embeddings=CONTEXT,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def bert():
    """Return an untrained BERT."""
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=97,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=CONTEXT,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=1,
        )
    )


def t5(**settings):
    """Return an untrained T5."""
    usual = {"decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 0}
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=97,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            **(usual | settings),
        )
    )


def questions(names=NAMES, shift=0):
    """Return two questions and answers about each person."""
    return [
        {"prompt": f"{name} {where} ", "completion": TOWNS[(i * k + shift) % 6], "person": name}
        for i, name in enumerate(names, 1)
        for k, where in ((1, "born"), (5, "now"))
    ]


def people_case(fresh=gpt2, **changes):
    """Return the case of the questions; owners are the people."""
    settings = {
        "train": questions(),
        "test": questions(["otto", "paul", "quin"]),
        "validation": questions(["rita", "sara", "tom"], 3),
        "task": "causal_lm",
        "processing_class": tokenizer(),
        "fresh": fresh,
        "recipe": uk.Recipe(optimizer="adamw", lr=0.01, epochs=25, batch_size=8),
        "group": "person",
    }
    return uk.Case(**(settings | changes))


@cache
def trained():
    """Return the case and a model trained on it."""
    case = people_case()
    return case, uk.train_original(case).model
