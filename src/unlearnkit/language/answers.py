"""Other answers to a prompt: refusals, or what a model itself says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import IGNORED, Tokens, token_data
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    TokenModel,
    language_task,
    log_prob_sums,
)
from unlearnkit.language.unlearning_losses import preference
from unlearnkit.train.features import lookup_by_row

Answer = Callable[[Sequence[int], Sequence[int]], list[int]]
"""From the tokens of a prompt, and of the answer to forget, to those of another answer."""


def preference_term(p: Problem, rt: Runtime, answer: Answer, beta: float) -> ForgetTerm:
    """Return DPO's loss of another answer to each forget row's prompt against its own.

    A row's prompt are the tokens before its first label. Log-probabilities of both answers under
    the original are computed once.
    """
    limit = language_task(p).reader.limit or p.forget.data.y.shape[1]
    rows, place = answers(p.forget, answer, limit)
    other = TokenModel(p.model, language_task(p), rows)
    kept = lookup_by_row(rows, log_prob_sums(p.original, rows, p, rt), rt)
    batches = list(rows.batches(1, rt))

    def term(step: ForgetStep) -> Tensor:
        own = step.rows.batch
        chosen = [batches[place[int(i)]] for i in own.row]
        wanted = _joined(chosen, own)
        return preference(
            -other(wanted).nll("seq_sum"),
            -step.rows.nll("seq_sum"),
            kept(wanted),
            step.reference.log_probs(own),
            beta=beta,
        )

    return term


def answers(forget: View, answer: Answer, limit: int) -> tuple[View, dict[int, int]]:
    """Return rows of the prompts of a forget set with other answers, and where each row's is.

    Args:
        forget: The rows; their prompts are the tokens before the first label.
        answer: Gives the other answer.
        limit: Most tokens of a row; answers are cut there.

    Returns:
        The rows ``(n,)``, and from the number of a forget row to the position of its own.

    Raises:
        InputError: If an answer has no token, or no room.
    """
    tokens: list[Tokens] = []
    place: dict[int, int] = {}
    for batch in forget.batches(1, Runtime()):
        ids = batch.x if isinstance(batch.x, Tensor) else batch.x["input_ids"]
        there = (batch.y[0] != IGNORED).nonzero()[:, 0]
        prompt = ids[0, : int(there.min())].tolist()
        other = answer(prompt, ids[0, int(there.min()) : int(there.max()) + 1].tolist())
        other = other[: limit - len(prompt)]
        if not other:
            raise InputError(
                f"answers: row {int(batch.row[0])}: no room for another answer after a prompt of"
                f" {len(prompt)} tokens, of {limit}; give CausalLM(max_length=...)"
            )
        place[int(batch.row[0])] = len(tokens)
        tokens.append(Tokens(prompt + other, [IGNORED] * len(prompt) + other))
    return View.all(token_data(tokens, 0, "answers", plain=isinstance(batch.x, Tensor))), place


def sampled_answer(model: nn.Module, p: Problem, rt: Runtime, stream: str) -> Answer:
    """Return the function that draws another answer from a model, of the own answer's length.

    Args:
        model: Runs in eval mode.
        p: The problem whose task runs it.
        rt: Device and randomness.
        stream: Name of the random stream.

    Returns:
        The function. Tokens are drawn one by one from the model's distribution; the first is never
        the own answer's.
    """
    rng, task = rt.rng(stream), language_task(p)

    def answer(prompt: Sequence[int], own: Sequence[int]) -> list[int]:
        said: list[int] = []
        for i in range(len(own)):
            ids = torch.tensor([[*prompt, *said, 0]], device=rt.device)
            with torch.no_grad():
                logits = task.logits(model, Batch(ids, ids, torch.zeros(1).long(), rt.cost))
            p_next = logits[0, -1].float().softmax(-1).cpu()
            if i == 0:
                p_next[own[0]] = 0.0
            said.append(int(torch.multinomial(p_next, 1, generator=rng)))
        return said

    return answer


def _joined(rows: Sequence[Batch], like: Batch) -> Batch:
    y = torch.cat([b.y for b in rows])
    row = torch.cat([b.row for b in rows])
    first = rows[0].x
    if isinstance(first, Tensor):
        return replace(
            like, x=torch.cat([b.x for b in rows if isinstance(b.x, Tensor)]), y=y, row=row
        )
    x = {n: torch.cat([b.x[n] for b in rows if isinstance(b.x, dict)]) for n in first}
    return replace(like, x=x, y=y, row=row)
