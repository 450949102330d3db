"""Token tasks: what language models have in common, whichever tokens they predict."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import Batch, Data, TensorData, View, as_named_tensors
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import first_rows, forward
from unlearnkit.core.module_state import eval_mode
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import IGNORED, SHOWN, TokenReader, TooLong

NO_LABEL = 1e4
"""Output of a place that has no label: far above any log-odds."""

SURE = 1e3
"""Largest log-odds of a label: beyond it the loss is 0 in float64 as well."""

Reduction = Literal["mean", "sum", "token"]

LEAK = 1e-5
"""Change of outputs, of the largest, that rounding does not explain."""


class TokenTask:
    """Rows of tokens; labels ``(B, T)`` are tokens, -100 where none counts.

    A model returns logits ``(B, T, V)``; those at place ``t - shift`` are for the label at t. The
    outputs of the task are the log-odds of each label against all other tokens, ``z_y -
    logsumexp(others)``, at the label's place ``(B, T)``, and 1e4 where there is no label: all that
    losses, margins and metrics need, V times smaller than the logits.
    """

    name: str = "tokens"
    kind: ClassVar[str]
    """What models of the task are called."""

    loader: ClassVar[str]
    """Class of transformers that loads such a model."""

    shift: ClassVar[int] = 0
    """Places between a label and the logits that predict it."""

    in_place: ClassVar[bool] = True
    """Whether labels stand at the places of ``input_ids``."""

    reads: ClassVar[type[TokenReader]] = TokenReader

    def __init__(
        self,
        vocabulary: int | None = None,
        *,
        processing_class: Any = None,
        loss: Reduction = "mean",
        max_length: int | None = None,
        too_long: TooLong | None = None,
    ) -> None:
        """Take the vocabulary, how texts are read, and how tokens add up to a row's loss.

        Args:
            vocabulary: Tokens, V; the tokenizer's when None.
            processing_class: The tokenizer that reads texts.
            loss: A row's loss in nats: the mean over its labels; their sum; or ``token``, the sum
                over the mean number of labels a row, whose mean over a batch is the mean over the
                batch's tokens, as transformers computes it.
            max_length: Most tokens of a row; the tokenizer's ``model_max_length`` when None.
            too_long: Longer texts: ``cut``, ``split`` into several rows of one owner, or
                ``refuse``. Documents are split and others cut when None.

        Raises:
            InputError: If a value is not one of these.
        """
        if vocabulary is None and processing_class is not None:
            vocabulary = len(processing_class)
        if vocabulary is None or vocabulary < 2:
            raise InputError(
                f"{self.name}: at least two tokens are needed, got {vocabulary}; give"
                " processing_class= or the size of the vocabulary"
            )
        if loss not in {"mean", "sum", "token"}:
            raise InputError(f"{self.name}: loss: must be mean, sum or token, got {loss!r}")
        if too_long not in {None, "cut", "split", "refuse"}:
            raise InputError(f"{self.name}: too_long: cut, split or refuse, got {too_long!r}")
        if max_length is not None and max_length < 2:
            raise InputError(f"{self.name}: max_length: at least 2 tokens, got {max_length}")
        self.vocabulary, self.loss = vocabulary, loss
        self.reader = self.reads(processing_class, max_length, too_long)

    @property
    def never_seen(self) -> float:
        """Return ``log V``: the loss of a uniform guess, in nats a token."""
        return math.log(self.vocabulary)

    @classmethod
    def infer(cls, data: Data) -> Self:
        """Take as many tokens as the largest label says."""
        return cls(max(int(cls._labels(data.y).max()) + 1, 2))

    def spec(self) -> Mapping[str, Any]:
        """Return the size of the vocabulary and what a row's loss is."""
        return {"name": self.name, "vocabulary": self.vocabulary, "loss": self.loss}

    def targets(self, y: Tensor) -> Tensor:
        """Return labels ``(N, T)`` as int64; places that nothing predicts have none.

        Raises:
            InputError: If a row has no label, or a label is no token.
        """
        y = self._labels(y).clone()
        y[:, : self.shift] = IGNORED
        bare = (y == IGNORED).all(1).nonzero()[:, 0]
        if len(bare):
            raise InputError(
                f"y: all labels of row {int(bare[0])} are masked ({len(bare)} such rows); leave"
                " these rows out, or mask fewer tokens"
            )
        bad = y[(y != IGNORED) & ((y < 0) | (y >= self.vocabulary))]
        if len(bad):
            raise InputError(
                f"y: label {int(bad[0])} is not among the tokens 0 to {self.vocabulary - 1}; the"
                f" tokenizer is another one's, or give {type(self).__name__}(vocabulary=...)"
            )
        return y

    @classmethod
    def _labels(cls, y: Tensor) -> Tensor:
        if y.ndim != 2 or y.shape[1] <= cls.shift or y.is_floating_point():
            raise InputError(
                f"y: a {cls.kind} needs one integer label a token (N, T), got"
                f" {y.dtype} {tuple(y.shape)}"
            )
        return y.long()

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the log-odds of each label ``(B, T)``; 1e4 at places without one.

        Stored log-odds ``(B, T)``, which a ``nn.Identity`` gives, are taken as they are.
        """
        if isinstance(model, nn.Identity) and isinstance(batch.x, Tensor) and batch.x.ndim == 2:
            return torch.where(batch.y != IGNORED, batch.x, NO_LABEL)
        logits, y = self.logits(model, batch), batch.y[:, self.shift :]
        there = y != IGNORED
        own = torch.where(there, y, 0)[..., None]
        label = logits.gather(-1, own)[..., 0]
        others = logits.scatter(-1, own, float("-inf")).logsumexp(-1)
        odds = torch.where(there, (label - others).clamp(max=SURE), NO_LABEL)
        return functional.pad(odds, (self.shift, 0), value=NO_LABEL)

    def logits(self, model: nn.Module, batch: Batch, first: int | None = None) -> Tensor:
        """Return the logits of labels from place ``first`` on: ``(B, T - first, V)``.

        All that are predicted when None. A model that can (``logits_to_keep`` of transformers)
        computes no others.

        Raises:
            UnsupportedError: If the model does not return logits ``(B, T, V)``.
        """
        first = self.shift if first is None else first
        length, start = batch.y.shape[1], first - self.shift
        some = start > 0 and isinstance(batch.x, dict) and _can_keep(model)
        if some:
            places = torch.arange(start, length, device=batch.y.device)
            batch = replace(batch, x={**as_named_tensors(batch.x), "logits_to_keep": places})
        out = forward(model, batch)
        wanted = length - start if some else length
        if out.ndim != 3 or out.shape[1] != wanted:
            raise UnsupportedError(
                f"the model returns shape {tuple(out.shape)}; logits (B, {wanted}, V) of a"
                f" {self.kind} are needed"
            )
        if out.shape[2] < self.vocabulary:
            raise UnsupportedError(
                f"the model knows {out.shape[2]} tokens and the tokenizer has {self.vocabulary};"
                f" {_OTHER_TOKENIZER}"
            )
        return out[:, : out.shape[1] - self.shift] if some else out[:, start : length - self.shift]

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return minus the log-probability of a row's labels, in nats: see ``loss``."""
        there = out < NO_LABEL
        lost = torch.where(there, -functional.logsigmoid(out), 0.0).sum(1)
        if self.loss == "sum":
            return lost
        count = there.sum(1).to(out.dtype)
        return lost / (count if self.loss == "mean" else count.mean())

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return KL(target || out) of the outcome *the label or another token*, mean over labels.

        In nats; by the data-processing inequality at most the KL over all tokens.
        """
        there = out < NO_LABEL
        q, t = (torch.where(there, x, 0.0) / temperature for x in (out, target))
        yes = functional.logsigmoid(t) - functional.logsigmoid(q)
        no = functional.logsigmoid(-t) - functional.logsigmoid(-q)
        p = torch.sigmoid(t)
        return _mean(p * yes + (1 - p) * no, there)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the log-odds of the labels, mean over a row's labels."""
        return _mean(out, out < NO_LABEL)

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Draw each label uniformly from the other tokens; outputs are then those of the result."""
        if avoid is not None and len(avoid):
            raise UnsupportedError(f"{self.name}: tokens have no classes to avoid")
        step = torch.randint(1, self.vocabulary, batch.y.shape, generator=rng).to(batch.y.device)
        drawn = (batch.y + step) % self.vocabulary
        return replace(batch, y=torch.where(batch.y == IGNORED, IGNORED, drawn))

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return one minus the probability of a label, mean over a row's labels."""
        return _mean(torch.sigmoid(-out), out < NO_LABEL)

    def log_probs(self, out: Tensor) -> Tensor | None:
        """Return None: a row has an outcome a token."""
        return None

    def predictions(self, out: Tensor) -> Tensor | None:
        """Return None: tokens are no numbers."""
        return None

    def check_model(self, model: nn.Module, view: View, rt: Runtime) -> None:
        """Refuse a model that does not fit the rows, or that is of another kind."""
        two = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        if two is True and self.in_place:
            raise UnsupportedError(
                "the model is an encoder with a decoder, which reads prompts and answers apart;"
                " give task='seq2seq'"
            )
        batch = first_rows(view, rt, 1)
        self._check_size(model, batch)
        self.check_kind(model, batch)

    def check_kind(self, model: nn.Module, batch: Batch) -> None:
        """Refuse a model whose outputs show that it is of another kind."""

    def remarks(self, forget: View, retain: View) -> tuple[str, ...]:
        """Return a sentence on retained rows that hold the tokens of a forget row."""
        if not isinstance(forget.data, TensorData) or not isinstance(retain.data, TensorData):
            return ()
        gone = {self._content(forget.data, int(i)) for i in forget.rows}
        same = [int(i) for i in retain.rows if self._content(retain.data, int(i)) in gone]
        if not same:
            return ()
        shown = ", ".join(map(str, same[:SHOWN])) + (", ..." if len(same) > SHOWN else "")
        return (
            f"{len(same)} retained rows hold the same tokens as a forget row (row {shown}):"
            " forgetting one copy leaves the other; name them in the request too",
        )

    def _content(self, data: TensorData, row: int) -> bytes:
        """Return what a row says: its tokens, with the labels where these stand among them."""
        x, y = as_named_tensors(data.x), data.y[row]
        ids = x[_tokens_of(x)][row]
        mask = (
            x["attention_mask"][row].bool() if "attention_mask" in x else torch.ones_like(ids) > 0
        )
        if self.in_place:
            parts = [torch.where(y != IGNORED, y, ids)[mask]]
        else:
            parts = [ids[mask], y[y != IGNORED]]
        return b"/".join(bytes(t.contiguous().cpu().numpy().tobytes()) for t in parts)

    def _check_size(self, model: nn.Module, batch: Batch) -> None:
        most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        length = max(t.shape[1] for t in as_named_tensors(batch.x).values() if t.ndim == 2)
        if isinstance(most, int) and length > most:
            raise InputError(
                f"rows have {length} tokens and the model's context {most}; give"
                f" {type(self).__name__}(processing_class=..., max_length={most})"
            )
        embeddings = getattr(model, "get_input_embeddings", lambda: None)()
        known = getattr(embeddings, "num_embeddings", None)
        if isinstance(known, int) and known < self.vocabulary:
            raise InputError(
                f"the model knows {known} tokens and the tokenizer has {self.vocabulary};"
                f" {_OTHER_TOKENIZER}"
            )

    def change_of_token(self, model: nn.Module, batch: Batch, place: int) -> Tensor:
        """Return how far logits of one row move with the input token of a place ``(T - shift,)``.

        As a share of the largest logit.
        """
        x = as_named_tensors(batch.x)
        name = _tokens_of(x)
        other = x[name].clone()
        other[0, place] = (other[0, place] + 1) % self.vocabulary
        changed = other if isinstance(batch.x, Tensor) else {**x, name: other}
        with eval_mode(model), torch.no_grad():
            one, two = (self.logits(model, b)[0] for b in (batch, replace(batch, x=changed)))
        return (one - two).abs().amax(-1) / one.abs().max()


def _tokens_of(x: Mapping[str, Tensor]) -> str:
    return "input_ids" if "input_ids" in x else next(iter(x))


_OTHER_TOKENIZER = (
    "call model.resize_token_embeddings(len(tokenizer)), or give the tokenizer that the model was"
    " trained with"
)


def _can_keep(model: nn.Module) -> bool:
    """Return whether a model of transformers, under an adapter or not, can leave out logits."""
    inside: Any = model
    if hasattr(model, "peft_config"):
        inside = inside.get_base_model()
    call = getattr(inside, "forward", None)
    return call is not None and "logits_to_keep" in inspect.signature(call).parameters


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Return the mean of each row over the places with a label: ``(B,)``."""
    return torch.where(there, values, 0.0).sum(1) / there.sum(1)
