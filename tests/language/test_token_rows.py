"""Texts as tokens and labels: columns, chats, documents, and what is refused."""

import pandas as pd
import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import people_case, questions, tokenizer
from unlearnkit.core.errors import InputError
from unlearnkit.core.token_rows import IGNORED, TokenReader

TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def read(source, tok=None, **settings):
    reader = TokenReader(tokenizer() if tok is None else tok, **settings)
    return reader.read(source, "train")


def ids(text):
    return [2 + ord(letter) - 32 for letter in text]


def rows(found):
    """Return the tokens and the labels of each row, without padding."""
    x, y = found.data.x, found.data.y
    return [
        (x["input_ids"][i, : int(n)].tolist(), y[i, : int(n)].tolist())
        for i, n in enumerate(x["attention_mask"].sum(1))
    ]


@pytest.mark.parametrize(
    "source",
    [["ab", "c"], [{"text": "ab"}, {"text": "c"}], pd.DataFrame({"text": ["ab", "c"]})],
    ids=["texts", "mappings", "frame"],
)
def test_every_token_of_a_text_and_its_end_are_labels(source):
    found = read(source)
    assert rows(found) == [([*ids("ab"), 0],) * 2, ([*ids("c"), 0],) * 2]
    assert found.data.x["input_ids"][1, 2] == 1
    assert found.data.y[1, 2] == IGNORED


def test_a_hub_set_is_read():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    found = read(datasets.Dataset.from_dict({"prompt": ["q "], "completion": ["a"]}))
    assert rows(found) == [([*ids("q a"), 0], [IGNORED] * 2 + ids("a") + [0])]


def test_a_prompt_has_no_labels_and_a_completion_has():
    (got,) = rows(read([{"prompt": "who? ", "completion": "me"}]))
    assert got == ([*ids("who? me"), 0], [IGNORED] * 5 + ids("me") + [0])


def chat(*said):
    names = ["user", "assistant"]
    return [{"role": names[i % 2], "content": text} for i, text in enumerate(said)]


def test_only_what_the_assistant_says_is_labelled_and_its_end_is_kept():
    tok = tokenizer(chat_template=TEMPLATE)
    whole = [*ids("u:hi"), 0, *ids("a:yo"), 0, *ids("u:x"), 0, *ids("a:z"), 0]
    want = [IGNORED] * 7 + ids("yo") + [0] + [IGNORED] * 6 + ids("z") + [0]
    assert rows(read([{"messages": chat("hi", "yo", "x", "z")}], tok)) == [(whole, want)]
    two = {"prompt": chat("hi", "yo", "x"), "completion": chat("x", "z")[1:]}
    want = [IGNORED] * 16 + ids("z") + [0]
    assert rows(read([two], tok)) == [(whole, want)]


def test_a_tokenised_set_loses_its_padding_and_needs_no_tokenizer():
    row = {"input_ids": [9, 9, 5, 6], "attention_mask": [0, 0, 1, 1], "labels": [9, 9, 5, 6]}
    found = TokenReader().read([row, {"input_ids": [3, 4, 7]}], "train")
    assert rows(found) == [([5, 6],) * 2, ([3, 4, 7],) * 2]


def test_without_a_pad_token_rows_are_the_same():
    case, other = people_case(), people_case(processing_class=tokenizer(pad_token=None))
    mask = case.train.x["attention_mask"].bool()
    assert torch.equal(case.train.y, other.train.y)
    both = [c.train.x["input_ids"][mask] for c in (case, other)]
    assert torch.equal(*both)


def test_long_texts_are_cut_and_the_run_says_so():
    case = people_case(train=[*questions(), {"text": "x" * 50, "person": "anna"}])
    assert case.train.y.shape[1] == 32
    done = uk.unlearn(case.fresh(), case, uk.Groups("anna"), "finetune")
    told = "train: 1 of 17 texts are longer than 32 tokens (row 16): they were cut at that length"
    assert told in done.notes


def test_long_texts_are_refused_where_that_is_chosen():
    with pytest.raises(InputError, match=r"1 of 2 texts are longer than 5 tokens .row 1.; shorten"):
        read(["ab", "abcdefgh"], max_length=5, too_long="refuse")


def test_a_document_is_split_into_rows_of_one_owner(tmp_path):
    for name, text in (("a", "abcdefgh"), ("b", "xy")):
        (tmp_path / f"{name}.txt").write_text(text)
    docs = uk.Documents.from_files(tmp_path / "*.txt")
    task = uk.CausalLM(processing_class=tokenizer(), max_length=4)
    case = uk.Case(train=docs, task=task)
    assert case.train.x["input_ids"][:2].tolist() == [ids("abcd"), ids("efgh")]
    parts = case.partition(uk.Groups(str(tmp_path / "a.txt")))
    assert parts.forget.rows.tolist() == [0, 1]
    assert parts.retain.rows.tolist() == [2]


def test_an_unknown_document_is_refused():
    docs = uk.Documents(("one", "two"), ("a.txt", "b.txt"))
    case = uk.Case(train=docs, task="causal_lm", processing_class=tokenizer())
    with pytest.raises(InputError, match="1 of 1 are no owner of the case"):
        case.partition(uk.Groups("c.txt"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: uk.Documents(("a", "b"), ("x", "x")), "two are called 'x'"),
        (lambda p: uk.Documents((), ()), "got 0 texts and 0 names"),
        (lambda p: uk.Documents.from_files(p / "*.md"), "matches no file"),
        (lambda p: uk.Documents.from_files(p / "bytes.txt"), "is no utf-8 text .byte 0."),
    ],
)
def test_documents_that_are_none_are_refused(make, told, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=told):
        make(tmp_path)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (["a", " "], "row 1: text is empty; leave the row out"),
        ([{"prompt": "a", "completion": ""}], "row 0: completion is empty"),
        ([{"words": "a"}], "there are: words"),
        ([3], "expected a text, or columns .* got int"),
        ([], "there are no texts"),
        ("abc", "one a row, got str"),
        ([{"messages": chat("a", "b")}], "need a tokenizer with a chat template"),
        ([{"input_ids": [1, 2], "position_ids": [0, 0]}], "several texts packed into one row"),
        ([{"input_ids": [1, 2], "labels": [1]}], "2 input_ids, 1 labels"),
        ([{"input_ids": [1, 2], "labels": [1, -100]}], "row 0 has no label after its first"),
        ([{"prompt": "a" * 40, "completion": "b"}], "row 0 has no label after its first"),
    ],
)
def test_texts_that_are_none_are_refused(source, told):
    with pytest.raises(InputError, match=told):
        read(source)


def test_a_template_that_changes_earlier_turns_is_refused():
    counts = "{{ messages|length }}" + TEMPLATE
    with pytest.raises(InputError, match="changes earlier turns"):
        read([{"messages": chat("a", "b")}], tokenizer(chat_template=counts))


def test_texts_without_a_tokenizer_are_refused():
    with pytest.raises(InputError, match=r"texts need a tokenizer; give Case.processing_class="):
        uk.Case(train=["a", "b"], task="causal_lm")


def test_a_tokenizer_of_another_task_is_refused():
    with pytest.raises(InputError, match="goes with task='causal_lm'"):
        uk.Case(train=["a", "b"], task="classification", processing_class=tokenizer())


def test_rows_are_named_by_keys_and_split_rows_cannot_be():
    case = people_case(keys=[f"q{i}" for i in range(16)])
    assert case.partition(uk.Rows("q3")).forget.rows.tolist() == [3]
    task = uk.CausalLM(processing_class=tokenizer(), max_length=4, too_long="split")
    with pytest.raises(InputError, match="row 0 is split into several, which one key cannot name"):
        uk.Case(train=["abcdefgh"], task=task, keys=["k"])


def test_parts_are_read():
    case = uk.Case.from_parts(
        forget=questions(["anna"]),
        retain=questions(["bob", "carl"]),
        task="causal_lm",
        processing_class=tokenizer(),
    )
    parts = case.partition(None)
    assert (len(parts.forget), len(parts.retain)) == (2, 4)
    assert case.task.vocabulary == 97
