"""Masked and sequence-to-sequence models: BERT and T5 against transformers' own losses."""

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import CONTEXT, bert, gpt2, people_case, questions, t5, tokenizer
from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import IGNORED
from unlearnkit.train.early_stopping import OFF

MASK = 2 + ord("~") - 32
QUICK = {"run": {"lr": 1.0, "share": 0.2}, "guard": OFF}


MAKE = {"masked_lm": bert, "seq2seq": t5}


def case_of(kind, **changes):
    tok = tokenizer(mask_token="~")
    return people_case(MAKE[kind], **({"task": kind, "processing_class": tok} | changes))


def first_batch(case, size=6):
    return next(View.all(case.train).batches(size, Runtime()))


@pytest.mark.parametrize("task", MAKE)
def test_the_token_loss_of_a_batch_is_that_of_transformers(task):
    model, kind = MAKE[task]().eval(), uk.catalog.tasks()[task]
    case = case_of(
        task,
        task=kind(processing_class=tokenizer(mask_token="~"), loss="token"),
        processing_class=None,
    )
    batch = first_batch(case)
    got = case.task.losses(case.task.outputs(model, batch), batch).mean()
    x = {n: t for n, t in batch.x.items() if n != "decoder_input_ids"}
    want = model(**x, labels=batch.y).loss
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_decoder_inputs_are_the_labels_one_place_later():
    batch = first_batch(case_of("seq2seq"))
    want = t5().prepare_decoder_input_ids_from_labels(batch.y)
    assert torch.equal(batch.x["decoder_input_ids"], want)


@pytest.mark.parametrize("task", MAKE)
def test_padding_changes_no_number(task):
    case, model = case_of(task), MAKE[task]().eval()
    whole = first_batch(case)
    ends = whole.x["attention_mask"].sum(1)
    row = int(ends.argmin())
    said = int((whole.y[row] != IGNORED).nonzero().max()) + 1

    def cut(name, t):
        return t[row : row + 1, : said if name == "decoder_input_ids" else int(ends[row])]

    x = {n: cut(n, t) for n, t in whole.x.items()}
    y = whole.y[row : row + 1, : said if task == "seq2seq" else int(ends[row])]
    short = Batch(x, y, torch.tensor([0]))
    want = case.task.losses(case.task.outputs(model, short), short)
    got = case.task.losses(case.task.outputs(model, whole), whole)[row : row + 1]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def masked(rows):
    found = people_case(
        bert, train=rows, group=None, task="masked_lm", processing_class=tokenizer(mask_token="~")
    ).train
    return found.x["input_ids"], found.y


def test_a_text_has_masks_over_a_seventh_of_its_tokens_always_the_same():
    text = "the quick brown fox jumps over"
    ids, y = masked([text, "short", text])
    assert (y != IGNORED).sum(1).tolist() == [round(0.15 * len(text)), 1, 4]
    assert torch.equal(y[0], y[2])
    assert ((ids == MASK) == (y != IGNORED)).all()
    plain = torch.tensor([2 + ord(c) - 32 for c in text])
    assert torch.equal(torch.where(y[0] != IGNORED, y[0], ids[0])[: len(text)], plain)


def test_every_token_of_an_answer_is_behind_a_mask_and_its_end_is_not():
    ids, y = masked([{"prompt": "who? ", "completion": "me"}])
    assert ids[0].tolist()[5:] == [MASK, MASK, 0]
    assert (y[0] != IGNORED).tolist() == [False] * 5 + [True] * 2 + [False]


def test_rows_with_labels_are_masked_already():
    ids, y = masked([{"input_ids": [9, MASK, 7], "labels": [-100, 8, -100]}])
    assert (ids[0].tolist(), y[0].tolist()) == ([9, MASK, 7], [-100, 8, -100])


def test_the_first_place_of_a_masked_row_has_a_label_too():
    case = people_case(
        bert,
        train=[{"input_ids": [MASK, 8, 7], "labels": [9, -100, -100]}] * 2,
        group=None,
        task="masked_lm",
        processing_class=tokenizer(mask_token="~"),
    )
    assert case.train.y[:, 0].tolist() == [9, 9]


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(InputError, match="the tokenizer has no mask token"):
        people_case(bert, task="masked_lm")


@pytest.mark.parametrize(
    ("model", "task", "told"),
    [
        (gpt2, "masked_lm", "it is a causal language model, not a masked one"),
        (gpt2, "seq2seq", "the model is no encoder with a decoder"),
        (bert, "seq2seq", "the model is no encoder with a decoder"),
        (bert, "causal_lm", "it is an encoder, not a causal language model"),
        (t5, "causal_lm", "an encoder with a decoder.* give task='seq2seq'"),
        (t5, "masked_lm", "an encoder with a decoder.* give task='seq2seq'"),
    ],
)
def test_a_model_of_another_kind_is_named(model, task, told):
    case = people_case(model, task=task, processing_class=tokenizer(mask_token="~"))
    with pytest.raises(UnsupportedError, match=told):
        uk.unlearn(model(), case, uk.Groups("anna"), "finetune")


def test_a_decoder_that_starts_from_another_token_is_refused():
    with pytest.raises(InputError, match=r"starts from token 5, and the rows from 1; give Seq2Seq"):
        uk.unlearn(t5(decoder_start_token_id=5), case_of("seq2seq"), uk.Groups("anna"), "finetune")
    task = uk.Seq2SeqLM(processing_class=tokenizer(), decoder_start=5)
    case = case_of("seq2seq", task=task, processing_class=None)
    assert case.train.x["decoder_input_ids"][:, 0].unique().tolist() == [5]


def test_a_text_without_a_prompt_is_no_pair():
    with pytest.raises(InputError, match="row 0 has no prompt for the encoder"):
        people_case(t5, train=["ab", "cd"], group=None, task="seq2seq")


def test_both_sides_of_a_long_pair_are_cut():
    row = {"prompt": "p" * 40, "completion": "c" * 50}
    case = people_case(t5, train=[row, questions()[0]], group=None, task="seq2seq")
    assert [t.shape[1] for t in case.train.x.values()] == [CONTEXT] * 3
    assert case.train.y.shape[1] == CONTEXT


@pytest.mark.parametrize("task", MAKE)
def test_copies_of_forget_rows_are_named(task):
    rows = [*questions(), {**questions()[0], "person": "bob"}]
    case = case_of(task, train=rows)
    how = uk.method("finetune", run={"share": 0.04})
    done = uk.unlearn(MAKE[task](), case, uk.Groups("anna"), how)
    assert any("1 retained rows hold the same tokens as a forget row" in n for n in done.notes)


@pytest.mark.parametrize("task", MAKE)
def test_an_adapter_forgets_and_the_result_is_audited(task):
    pytest.importorskip("peft")
    case, model = case_of(task), MAKE[task]()
    how = uk.method("npo", peft_config={"r": 2}, **QUICK)
    done = uk.unlearn(model, case, uk.Groups("anna"), how)
    gone = next(case.partition(uk.Groups("anna")).forget.batches(2, Runtime()))
    with torch.no_grad():
        old, new = (
            case.task.losses(case.task.outputs(m.eval(), gone), gone).mean()
            for m in (model, done.model)
        )
    assert new > old
    assert uk.audit(done, recipe_check=False).tier == "fast"
