"""Token rows: texts, prompts with completions and chats as tokens and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearnkit.core.data import TensorData, as_tensor
from unlearnkit.core.digest import digest
from unlearnkit.core.documents import Documents
from unlearnkit.core.errors import InputError
from unlearnkit.core.task import TASKS
from unlearnkit.core.text import one_line

IGNORED = -100
"""Label of a token that no loss counts: of a prompt, of another speaker, of padding."""

TOKEN_TASKS = frozenset({"causal_lm", "masked_lm", "seq2seq"})
"""Tasks whose targets are tokens."""

TooLong = Literal["cut", "split", "refuse"]

FORMS = {"paraphrased_answer", "perturbed_answer", "paraphrased_question"}
"""Columns with other forms of a question, as TOFU calls them."""

PACKED = ("position_ids", "seq_lengths", "cu_seq_lens_q")
"""Columns of sets in which several texts share a row."""

SHOWN = 5
"""Most rows that a remark names."""

NO_LENGTH = 10**6
"""A tokenizer's ``model_max_length`` from which on it means that there is no limit."""


@dataclass(frozen=True)
class Tokens:
    """One text: its tokens, and a label for each."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class QuestionForms:
    """Other forms of a row's question and answer, each with the answer's tokens as labels."""

    paraphrase: Tokens | None = None
    """The question with the right answer in other words."""

    wrong: tuple[Tokens, ...] = ()
    """The question with wrong answers in those words."""

    other_question: Tokens | None = None
    """The question in other words with the right answer."""


@dataclass(frozen=True)
class QuestionData(TensorData):
    """Rows that have other forms of their questions."""

    forms: tuple[QuestionForms, ...] = field(kw_only=True)
    """One a row."""

    def key(self) -> str:
        """Return the content address of all rows and forms."""
        return digest({"rows": super().key(), "forms": repr(self.forms)})


@dataclass(frozen=True)
class TokenRows:
    """What was read of a set of texts."""

    data: TensorData
    owners: Any
    """One a row, or None."""

    keys: Any
    remarks: tuple[str, ...]
    """What a user should know, such as texts that were cut."""


@dataclass(frozen=True)
class TokenReader:
    """Reads texts by a tokenizer; sets that are tokenised already need none."""

    processing_class: Any = None
    """A tokenizer of transformers, or anything that is called and answers alike."""

    max_length: int | None = None
    """Most tokens of a row; the tokenizer's ``model_max_length`` when None."""

    too_long: TooLong | None = None
    """What becomes of longer texts; when None documents are split and others cut."""

    shift: ClassVar[int] = 1
    """Places at the start of a row that nothing predicts."""

    ends: ClassVar[tuple[str, ...]] = ("eos_token_id",)
    """Tokens that end a text: the first that the tokenizer has."""

    keeps_prompt_end: ClassVar[bool] = False

    def read(self, source: Any, name: str, group: Any = None, keys: Any = None) -> TokenRows:
        """Return the rows of a set.

        Args:
            source: Texts; mappings (also as a table) with ``text``, with ``prompt`` and
                ``completion``, with ``messages``, or with ``input_ids``; or ``Documents``.
            name: What to call it in an error.
            group: A column, or one owner a text; the names of documents when None.
            keys: A column, or one key a text.

        Returns:
            The rows, padded on the right to the longest.

        Raises:
            InputError: If a text is empty, too long where that is refused, or of another form.
        """
        rows = _rows(source, name)
        owners, ids = _column(rows, group), _column(rows, keys)
        if isinstance(source, Documents) and group is None:
            owners = list(source.names)
        limit = self.limit
        how = self.too_long or ("split" if isinstance(source, Documents) else "cut")
        parts: list[Tokens] = []
        forms: list[QuestionForms] = []
        place: list[int] = []
        long: list[int] = []
        for i, row in enumerate(rows):
            whole = self._tokens(row, f"{name}: row {i}")
            if limit is not None and self._length(whole) > limit:
                long.append(i)
            for part in self._pieces(whole, limit, how):
                parts.append(part)
                forms.append(self._forms(row, f"{name}: row {i}"))
                place.append(i)
        remarks = _length_remarks(name, long, len(rows), limit, how)
        if how == "split" and long and ids is not None:
            raise InputError(
                f"{name}: keys: row {long[0]} is split into several, which one key cannot name;"
                " name rows by group=, or cut with CausalLM(too_long='cut')"
            )
        data = self.rows_of(parts, name)
        if any(f != QuestionForms() for f in forms):
            data = QuestionData(data.x, data.y, forms=tuple(forms))
        return TokenRows(data, _at(owners, place), ids, remarks)

    def completion(self, text: str) -> list[int]:
        """Return the tokens of a text that follows a prompt, its end marked.

        Raises:
            InputError: If there is no tokenizer.
        """
        if self.processing_class is None:
            raise InputError(
                "processing_class: texts need a tokenizer; give Case(processing_class=tokenizer)"
            )
        ids = _ids(self.processing_class(text, add_special_tokens=False))
        return ids + self._end(ids)

    @property
    def limit(self) -> int | None:
        """Return the most tokens of a row; None where nothing limits them."""
        own = getattr(self.processing_class, "model_max_length", None)
        own = own if isinstance(own, int) and own < NO_LENGTH else None
        return own if self.max_length is None else self.max_length

    def rows_of(self, parts: Sequence[Tokens], name: str) -> TensorData:
        """Return texts as rows, padded to the longest."""
        return token_data(parts, self._pad(), name, shift=self.shift)

    def _forms(self, row: Any, where: str) -> QuestionForms:
        """Return the other forms that columns of a row give, under the names of TOFU."""
        if not isinstance(row, Mapping) or not FORMS & set(row):
            return QuestionForms()
        if not isinstance(row.get("prompt"), str) or not isinstance(row.get("completion"), str):
            raise InputError(f"{where}: {', '.join(sorted(FORMS))} go with prompt and completion")

        def of(prompt: str, completion: str) -> Tokens:
            whole = self._tokens({"prompt": prompt, "completion": completion}, where)
            return self._pieces(whole, self.limit, "cut")[0]

        say, asked = row.get("paraphrased_answer"), row.get("paraphrased_question")
        return QuestionForms(
            None if say is None else of(row["prompt"], say),
            tuple(of(row["prompt"], text) for text in row.get("perturbed_answer") or ()),
            None if asked is None else of(asked, row["completion"]),
        )

    def _length(self, whole: Tokens) -> int:
        return len(whole.ids)

    def _pieces(self, whole: Tokens, limit: int | None, how: TooLong) -> Sequence[Tokens]:
        if limit is None or len(whole.ids) <= limit:
            return [whole]
        ends = range(0, len(whole.ids), limit) if how == "split" else (0,)
        parts = [Tokens(whole.ids[i : i + limit], whole.labels[i : i + limit]) for i in ends]
        # A piece of one token, or of a prompt alone, predicts nothing.
        return [
            p for p in parts if p is parts[0] or any(t != IGNORED for t in p.labels[self.shift :])
        ]

    def _pad(self) -> int:
        """Return what fills rows up: attention masks and labels keep it out of every number."""
        for name in ("pad_token_id", "eos_token_id"):
            found = getattr(self.processing_class, name, None)
            if found is not None:
                return int(found)
        return 0

    def _end(self, ids: Sequence[int]) -> list[int]:
        end = self._end_token()
        return [] if end is None or (ids and ids[-1] == end) else [end]

    def _end_token(self) -> int | None:
        found = [getattr(self.processing_class, name, None) for name in self.ends]
        return next((int(t) for t in found if t is not None), None)

    def _tokens(self, row: Any, where: str) -> Tokens:
        row = {"text": row} if isinstance(row, str) else row
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: {_EXPECTED}, got {type(row).__name__}")
        packed = next((c for c in PACKED if c in row), None)
        if packed is not None:
            raise InputError(
                f"{where}: has {packed!r}: several texts packed into one row cannot be forgotten"
                " one by one; give one text a row"
            )
        if "input_ids" in row:
            return _given(row, where)
        if "messages" in row:
            return self._chat(row["messages"], 0, where)
        if "prompt" in row and "completion" in row:
            before, after = row["prompt"], row["completion"]
            if not isinstance(before, str):
                return self._chat([*before, *after], len(before), where)
            self._check_text(after, where, "completion")
            head = _ids(self.processing_class(before)) if self.processing_class else []
            tail = self.completion(after)
            if not self.keeps_prompt_end and len(head) > 1 and head[-1] == self._end_token():
                head = head[:-1]
            return Tokens(head + tail, [IGNORED] * len(head) + tail)
        if "text" not in row:
            have = ", ".join(map(str, row))
            raise InputError(f"{where}: {_EXPECTED}; there are: {have}")
        self._check_text(row["text"], where, "text")
        if self.processing_class is None:
            self.completion("")
        ids = _ids(self.processing_class(row["text"]))
        ids = ids + self._end(ids)
        return Tokens(ids, list(ids))

    def _check_text(self, text: Any, where: str, what: str) -> None:
        if not isinstance(text, str):
            raise InputError(f"{where}: {what} is no text, got {type(text).__name__}")
        if not text.strip():
            raise InputError(f"{where}: {what} is empty; leave the row out")

    def _chat(self, messages: Any, first: int, where: str) -> Tokens:
        """Return a conversation with labels on what the assistant says from a message on."""
        if not getattr(self.processing_class, "chat_template", None):
            raise InputError(
                f"{where}: messages need a tokenizer with a chat template; set"
                " tokenizer.chat_template, or give prompt and completion"
            )
        whole = self._rendered(messages, prompt=False)
        labels = [IGNORED] * len(whole)
        for i, message in enumerate(messages):
            if i < first or message.get("role") != "assistant":
                continue
            head = self._rendered(messages[:i], prompt=True)
            turn = self._rendered(messages[: i + 1], prompt=False)
            if whole[: len(turn)] != turn or turn[: len(head)] != head:
                raise InputError(
                    f"{where}: the chat template changes earlier turns when a later one is added,"
                    " so that assistant tokens cannot be found; give prompt and completion"
                )
            labels[len(head) : len(turn)] = turn[len(head) :]
        return Tokens(whole, labels)

    def _rendered(self, messages: Sequence[Any], *, prompt: bool) -> list[int]:
        return _ids(
            self.processing_class.apply_chat_template(
                list(messages), add_generation_prompt=prompt, tokenize=True, return_dict=True
            )
        )


_EXPECTED = (
    "expected a text, or columns text, prompt and completion, messages, or input_ids (with labels)"
)


def reading_task(task: Any, processing_class: Any) -> Any:
    """Return the task as a case with a tokenizer has it: ``causal_lm`` with that tokenizer.

    Raises:
        InputError: If the task reads no texts, or has a tokenizer of its own.
    """
    if processing_class is None:
        return task
    kind = TASKS.get(task) if isinstance(task, str) else None
    if kind is None or not hasattr(kind, "remarks"):
        raise InputError(
            "processing_class: goes with task='causal_lm', 'masked_lm' or 'seq2seq'; give a"
            " CausalLM its own: CausalLM(processing_class=tokenizer)"
        )
    return kind(processing_class=processing_class)


def reader_of(task: Any) -> TokenReader | None:
    """Return what reads texts for a task; None where rows are no texts."""
    if isinstance(task, str):
        kind: type[TokenReader] | None = getattr(TASKS.get(task), "reads", None)
        return None if kind is None else kind()
    found: TokenReader | None = getattr(task, "reader", None)
    return found


def is_text(source: Any) -> bool:
    """Return whether a set has to be read by a ``TokenReader``: it is no pair of tensors."""
    if source is None or isinstance(source, TensorData):
        return False
    pair = isinstance(source, tuple) and len(source) == 2
    return not (pair and not isinstance(source[0], str)) and not hasattr(source, "tensors")


def _rows(source: Any, name: str) -> list[Any]:
    if isinstance(source, Documents):
        return list(source.texts)
    if hasattr(source, "to_dict") and hasattr(source, "iloc"):
        return list(source.to_dict("records"))
    if isinstance(source, str | bytes | Mapping) or not hasattr(source, "__len__"):
        raise InputError(f"{name}: {_EXPECTED}, one a row, got {type(source).__name__}")
    rows = [source[i] for i in range(len(source))]
    if not rows:
        raise InputError(f"{name}: there are no texts")
    return rows


def _column(rows: Sequence[Any], given: Any) -> Any:
    """Return a column of rows by name, or what is given."""
    if not isinstance(given, str):
        return given
    lost = next((i for i, r in enumerate(rows) if isinstance(r, str) or given not in r), None)
    if lost is not None:
        raise InputError(f"row {lost} has no column {given!r}; give one value a text as a list")
    return [row[given] for row in rows]


def _at(values: Any, place: Sequence[int]) -> Any:
    if values is None or len(values) == len(place):
        return values
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [listed[i] for i in place]


def _ids(encoded: Any) -> list[int]:
    ids = encoded["input_ids"]
    return [int(i) for i in (ids.tolist() if hasattr(ids, "tolist") else ids)]


def _given(row: Mapping[str, Any], where: str) -> Tokens:
    """Return a row that is tokenised already; padding under its mask is left out."""
    ids = as_tensor(row["input_ids"], f"{where}: input_ids").tolist()
    labels = as_tensor(row.get("labels", row["input_ids"]), f"{where}: labels").tolist()
    mask = as_tensor(row.get("attention_mask", [1] * len(ids)), f"{where}: attention_mask").tolist()
    if not len(ids) == len(labels) == len(mask):
        raise InputError(
            f"{where}: {len(ids)} input_ids, {len(labels)} labels, {len(mask)} in attention_mask;"
            " give one of each a token"
        )
    seen = [i for i, there in enumerate(mask) if there]
    return Tokens([int(ids[i]) for i in seen], [int(labels[i]) for i in seen])


def _length_remarks(
    name: str, long: Sequence[int], count: int, limit: int | None, how: TooLong
) -> tuple[str, ...]:
    if not long:
        return ()
    shown = ", ".join(map(str, long[:SHOWN])) + (", ..." if len(long) > SHOWN else "")
    what = f"{len(long)} of {count} texts are longer than {limit} tokens (row {shown})"
    if how == "refuse":
        raise InputError(
            f"{name}: {what}; shorten them, or give CausalLM(too_long='cut') or 'split'"
        )
    done = "cut at that length" if how == "cut" else "split into rows of that length"
    return (f"{name}: {what}: they were {done}",)


def token_data(
    parts: Sequence[Tokens], pad: int, name: str, *, plain: bool = False, shift: int = 1
) -> TensorData:
    """Return texts as rows padded on the right to the longest.

    Args:
        parts: The texts.
        pad: Token of the padding; masks and labels keep it out of every number.
        name: What to call the set in an error.
        plain: Whether inputs are the tokens alone, without an attention mask.
        shift: Places at the start that nothing predicts.

    Returns:
        The rows.

    Raises:
        InputError: If nothing is predicted of a text.
    """
    bad = next(
        (i for i, p in enumerate(parts) if all(t == IGNORED for t in p.labels[shift:])), None
    )
    if bad is not None:
        raise InputError(
            f"{name}: row {bad} has no label after its first token, so that nothing is predicted"
            f" of it ({len(parts[bad].ids)} tokens:"
            f" {one_line(str(parts[bad].ids), 60)}); leave it out, or allow more tokens"
        )
    ids, mask = pad_rows([p.ids for p in parts], pad)
    labels, _ = pad_rows([p.labels for p in parts], IGNORED)
    return TensorData(ids if plain else {"input_ids": ids, "attention_mask": mask}, labels)


def pad_rows(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return rows ``(N, T)`` filled up on the right, and where they are not."""
    width = max(map(len, rows))
    found = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(found)
    for i, row in enumerate(rows):
        found[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return found, mask
