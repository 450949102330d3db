"""Answers of a causal language model: token scores of given ones, and greedy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import InputError
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.token_rows import IGNORED
from unlearnkit.language.token_scores import TokenScores, score_tokens


def score_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    batch_size: int = 64,
) -> list[TokenScores]:
    """Return the scores of each answer's tokens after its prompt, in evaluation mode.

    Prompt and answer are tokenised apart, with a space before the answer.

    Args:
        model: A causal language model of transformers; it is left in the mode it was in.
        tokenizer: Its tokenizer (``processing_class``).
        prompts: Questions; without one the first token of an answer does not count.
        answers: One for each prompt.
        batch_size: Answers scored at once.

    Returns:
        One entry an answer, on the CPU.

    Raises:
        InputError: If there is not one answer for each prompt, or a text is longer than the
            model's context.
    """
    if len(prompts) != len(answers):
        raise InputError(
            f"score_answers: {len(prompts)} prompts need as many answers, got {len(answers)}"
        )
    rows = [
        (encode(tokenizer, p), encode(tokenizer, f" {a}" if p else a))
        for p, a in zip(prompts, answers, strict=True)
    ]
    _check_length(model, [len(p) + len(a) for p, a in rows])
    # Texts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    found: dict[int, TokenScores] = {}
    device = next(model.parameters()).device
    with eval_mode(model), torch.inference_mode():
        for start in range(0, len(order), batch_size):
            few = order[start : start + batch_size]
            ids, mask = _pad([rows[i][0] + rows[i][1] for i in few], device, left=False)
            labels = torch.where(mask.bool(), ids, IGNORED)
            for place, i in enumerate(few):
                labels[place, : len(rows[i][0])] = IGNORED
            out = model(input_ids=ids, attention_mask=mask).logits
            for i, s in zip(few, score_tokens(out, labels), strict=True):
                parts = (s.log_probs, s.correct, s.mean, s.deviation)
                found[i] = TokenScores(*(t.cpu() for t in parts))
    return [found[i] for i in range(len(rows))]


def greedy_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 64,
) -> list[str]:
    """Return what the model says after each prompt when it always takes the most probable token.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        prompts: Questions, none empty.
        max_new_tokens: Longest answer; an end-of-text token ends it sooner.
        batch_size: Prompts answered at once.

    Returns:
        Texts without special tokens.

    Raises:
        InputError: If a prompt is empty, or leaves no room for the answer.
    """
    rows = [encode(tokenizer, p) for p in prompts]
    if not all(rows):
        raise InputError("greedy_answers: every prompt must have a token; leave out empty ones")
    _check_length(model, [len(r) + max_new_tokens for r in rows])
    generate: Any = model.generate
    found = []
    device = next(model.parameters()).device
    with eval_mode(model), torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            ids, mask = _pad(rows[start : start + batch_size], device, left=True)
            # Padding is masked, so that any token will do where the tokenizer has none for it.
            out = generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
            )
            new = out[:, ids.shape[1] :].tolist()
            found += [tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]
    return found


def greedy_tokens(
    model: nn.Module,
    task: Any,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    plain: bool = False,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the ``count`` most probable tokens after each prompt, one by one.

    Any model of the task will do: each token is one forward pass over all before it.

    Args:
        model: A causal language model, or one that a method made of it.
        task: Runs it.
        prompts: Tokens, at least one each.
        count: Of tokens.
        plain: Whether the model takes tokens alone, without an attention mask.
        batch_size: Prompts of one length read at once.

    Returns:
        Tokens, one list a prompt.
    """
    device = next(model.parameters()).device
    found: dict[int, list[int]] = {}
    lengths = sorted({len(p) for p in prompts})
    groups = [[i for i, p in enumerate(prompts) if len(p) == n] for n in lengths]
    with eval_mode(model), torch.inference_mode():
        for group in groups:
            for start in range(0, len(group), batch_size):
                few = group[start : start + batch_size]
                ids = torch.tensor([list(prompts[i]) for i in few], device=device)
                for _ in range(count):
                    # The last place has no logits of its own: one more token makes room for them.
                    more = torch.nn.functional.pad(ids, (0, 1))
                    x = (
                        more
                        if plain
                        else {"input_ids": more, "attention_mask": torch.ones_like(more)}
                    )
                    batch = Batch(x, more, torch.arange(len(few)))
                    last = task.logits(model, batch, ids.shape[1])[:, 0]
                    ids = torch.cat([ids, last.argmax(-1, keepdim=True)], 1)
                found |= {
                    i: row[len(prompts[i]) :] for i, row in zip(few, ids.tolist(), strict=True)
                }
    return [found[i] for i in range(len(prompts))]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_length(model: nn.Module, lengths: Sequence[int]) -> None:
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if most is not None and max(lengths, default=0) > most:
        raise InputError(
            f"a prompt with its answer has {max(lengths)} tokens, the model takes {most}; use fewer"
            " examples or a shorter answer"
        )


def _pad(rows: Sequence[list[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)
