"""Row scores: what a model of an audit gives the label tokens of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import predict
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.token_rows import IGNORED, QuestionData, QuestionForms, Tokens
from unlearnkit.language.token_scores import TokenScores, score_tokens

MOST_ROWS = 1_000
"""Most rows of a split on which whole distributions over tokens are looked at."""

NO_LABEL = 1e4
"""Output of a place without a label: see ``unlearnkit.tasks.token_task``."""

UNLEARNED = ModelRole.UNLEARNED


def label_nll(out: Tensor) -> Tensor:
    """Return minus the log-probability of each row's labels ``(B,)`` from log-odds ``(B, T)``."""
    return torch.where(out < NO_LABEL, -functional.logsigmoid(out), 0.0).sum(1)


def label_log_probs(e: Evidence, split: Split, who: ModelRole = UNLEARNED, k: int = 0) -> Tensor:
    """Return the mean log-probability of each row's labels ``(n,)``, in nats, float64."""
    return mean_label_log_probs(e.outputs(who, split, k))


def mean_label_log_probs(out: Tensor) -> Tensor:
    """Return the mean log-probability of each row's labels ``(B,)`` from log-odds ``(B, T)``."""
    out = out.double()
    return -label_nll(out) / (out < NO_LABEL).sum(1)


def label_scores(e: Evidence, split: Split) -> list[TokenScores]:
    """Return log-probabilities of the labels alone, from stored outputs; other fields are nan."""
    found = []
    for row in e.outputs(UNLEARNED, split).double():
        logs = functional.logsigmoid(row[row < NO_LABEL])
        none = torch.full_like(logs, torch.nan)
        found.append(TokenScores(logs, none, none, none))
    return found


def token_scores(e: Evidence, split: Split) -> list[TokenScores]:
    """Return all scores of at most 1,000 rows of a split; the model is run once for all metrics."""
    view = e.views[split].sample(MOST_ROWS, e.rt, f"token scores/{split}")
    return e.cached(
        ("token scores", str(split)), lambda model: scores_of(model, view, e), UNLEARNED
    )


def scores_of(model: nn.Module, view: View, e: Evidence) -> list[TokenScores]:
    """Return the scores of rows under a model, in eval mode."""
    task, found = cast("Any", e.task), []
    with eval_mode(model), torch.inference_mode(), e.rt.autocast():
        for batch in view.batches(e.recipe.batch_size, e.rt):
            logits = functional.pad(task.logits(model, batch), (0, 0, 0, 1))
            labels = functional.pad(batch.y[:, task.shift :], (1, 0), value=IGNORED)
            for s in score_tokens(logits, labels):
                parts = (s.log_probs, s.correct, s.mean, s.deviation)
                found.append(TokenScores(*(t.cpu() for t in parts)))
    return found


def log_probs_of_rows(model: nn.Module, parts: Sequence[Tokens], e: Evidence) -> Tensor:
    """Return the mean log-probability of the labels of other rows ``(n,)``, in nats, float64."""
    reader = cast("Any", e.task).reader
    rows = _like(reader.rows_of(parts, "rows"), e)
    view = View.all(rows.with_targets(e.task.targets(rows.y)))
    return mean_label_log_probs(predict(model, view, e.task, e.rt, e.recipe.batch_size))


def forms(e: Evidence, split: Split) -> list[QuestionForms] | None:
    """Return the other forms of the questions of a split's rows; None where no row has any."""
    view = e.views[split]
    data = view.data
    return [data.forms[int(i)] for i in view.rows] if isinstance(data, QuestionData) else None


def rows_as_tokens(view: View) -> list[Tokens]:
    """Return rows of a causal language model as tokens with labels, without padding."""
    data = view.data
    assert isinstance(data, TensorData)
    found = []
    for i in view.rows.tolist():
        ids = data.x if isinstance(data.x, Tensor) else data.x["input_ids"]
        row, y = ids[i], data.y[i]
        end = int((y != IGNORED).nonzero().max()) + 1
        found.append(Tokens(row[:end].tolist(), y[:end].tolist()))
    return found


def answer_texts(e: Evidence, rows: Sequence[Sequence[int]]) -> list[str] | None:
    """Return tokens as texts; None where the task has no tokenizer that can say them."""
    tokenizer = cast("Any", e.task).reader.processing_class
    say: Callable[..., str] | None = getattr(tokenizer, "decode", None)
    if say is None:
        return None
    return [say(list(row), skip_special_tokens=True) for row in rows]


def _like(data: TensorData, e: Evidence) -> TensorData:
    """Return rows in the form that the evidence's models take: with or without a mask."""
    plain = any(
        isinstance(v.data, TensorData) and isinstance(v.data.x, Tensor) for v in e.views.values()
    )
    if plain and not isinstance(data.x, Tensor):
        return TensorData(data.x["input_ids"], data.y)
    return data
