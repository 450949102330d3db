"""The task of causal language models against transformers and arithmetic by hand."""

import math

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import gpt2, llama, people_case, tokenizer, trained, transformers
from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import Runtime

TASK = uk.CausalLM(11)
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]])
LABELS = torch.tensor([[-100, 4, 5, 6], [-100, -100, 9, -100]])
BATCH = Batch(IDS, LABELS, torch.arange(2))


class Fixed(torch.nn.Module):
    """Returns the same logits for all rows."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.logits = torch.nn.Parameter(torch.randn(4, 11, generator=rng, dtype=torch.float64))

    def forward(self, x):
        return self.logits.expand(len(x), -1, -1)


def by_hand(model=None):
    """Return the log-probabilities of the labels of each row."""
    p = (model or Fixed()).logits.detach().log_softmax(-1)
    return [torch.stack([p[0, 4], p[1, 5], p[2, 6]]), p[1, 9][None]]


@pytest.mark.parametrize(
    ("kind", "reduce"),
    [
        ("mean", lambda r, n: -r.mean()),
        ("sum", lambda r, n: -r.sum()),
        ("token", lambda r, n: -r.sum() / 2),
    ],
)
def test_a_row_s_loss_is_the_named_sum_of_its_labels(kind, reduce):
    task = uk.CausalLM(11, loss=kind)
    got = task.losses(task.outputs(Fixed(), BATCH), BATCH)
    want = torch.stack([reduce(r, 4) for r in by_hand()])
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_outputs_are_log_odds_and_margins_and_errors_their_means():
    out = TASK.outputs(Fixed(), BATCH)
    p = [r.exp() for r in by_hand()]
    odds = [torch.log(r / (1 - r)) for r in p]
    torch.testing.assert_close(out[0, 1:], odds[0], rtol=1e-9, atol=1e-12)
    assert (out == 1e4).tolist() == (LABELS == -100).tolist()
    for got, want in (
        (TASK.margin(out, BATCH), [r.mean() for r in odds]),
        (TASK.errors(out, BATCH), [(1 - r).mean() for r in p]),
    ):
        torch.testing.assert_close(got, torch.stack(want), rtol=1e-9, atol=1e-12)


def test_divergence_is_that_of_the_label_or_another_token_and_below_the_whole():
    other = Fixed()
    torch.nn.init.normal_(other.logits, generator=torch.Generator().manual_seed(5))
    out, target = (TASK.outputs(m, BATCH).detach() for m in (Fixed(), other))
    t, q = by_hand(other)[0].exp(), by_hand()[0].exp()
    want = (t * (t / q).log() + (1 - t) * ((1 - t) / (1 - q)).log()).mean()
    got = TASK.divergence(out, target)
    torch.testing.assert_close(got[0], want, rtol=1e-9, atol=1e-12)
    a, b = other.logits.log_softmax(-1), Fixed().logits.log_softmax(-1)
    whole = (a.exp() * (a - b)).sum(-1)[:3].mean()
    assert 0 < float(got[0]) < float(whole.detach())
    assert not TASK.divergence(out, out).any()


def test_log_odds_keep_a_label_that_is_nearly_certain():
    sure = torch.tensor([[[50.0, 0.0]] * 2])
    model = type("Sure", (torch.nn.Module,), {"forward": lambda self, x: sure})()
    batch = Batch(torch.zeros(1, 2).long(), torch.tensor([[-100, 0]]), torch.zeros(1).long())
    task = uk.CausalLM(2)
    loss = task.losses(task.outputs(model, batch).double(), batch)
    torch.testing.assert_close(loss.item(), math.exp(-50), rtol=1e-6, atol=0)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_token_loss_of_a_batch_is_that_of_transformers(make):
    model = make().eval()
    case = people_case(make)
    task = uk.CausalLM(processing_class=tokenizer(), loss="token")
    batch = next(View.all(case.train).batches(6, Runtime()))
    got = task.losses(task.outputs(model, batch), batch).mean()
    want = model(**batch.x, labels=batch.y).loss
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_padding_changes_no_number(make):
    case, model = people_case(make), make().eval()
    whole = next(View.all(case.train).batches(6, Runtime()))
    row = View.all(case.train).pick(torch.tensor([0]))
    alone = next(row.batches(1, Runtime()))
    end = int(alone.x["attention_mask"].sum())
    short = Batch({n: t[:, :end] for n, t in alone.x.items()}, alone.y[:, :end], alone.row)
    task = case.task
    want = task.losses(task.outputs(model, short), short)
    got = task.losses(task.outputs(model, whole), whole)[:1]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_wrong_labels_are_other_tokens_where_labels_were():
    wrong = TASK.wrong(BATCH, torch.Generator().manual_seed(0)).y
    there = LABELS != -100
    assert (wrong[~there] == -100).all()
    assert (wrong[there] != LABELS[there]).all()
    assert ((wrong[there] >= 0) & (wrong[there] < 11)).all()


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (torch.tensor([[1, -100, -100]]), "all labels of row 0 are masked"),
        (torch.tensor([[1, 11, 2]]), "label 11 is not among the tokens 0 to 10"),
        (torch.tensor([[1.0, 2.0]]), "one integer label a token"),
        (torch.tensor([1, 2]), "one integer label a token"),
    ],
)
def test_labels_that_are_none_are_refused(y, told):
    with pytest.raises(InputError, match=told):
        TASK.targets(y)


def unlearn(model, case, **how):
    return uk.unlearn(model, case, uk.Groups("anna"), uk.method("finetune", **how))


def test_an_encoder_is_refused():
    config = transformers.BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with pytest.raises(UnsupportedError, match="it is an encoder, not a causal language model"):
        unlearn(transformers.BertForMaskedLM(config), people_case())


def test_a_model_of_one_answer_a_row_is_refused():
    config = gpt2().config
    config.pad_token_id = 1
    with pytest.raises(UnsupportedError, match=r"logits .B, 15, V. of a causal"):
        unlearn(transformers.GPT2ForSequenceClassification(config), people_case())


def test_a_tokenizer_that_does_not_fit_is_refused():
    few = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=50,
            n_positions=32,
            n_embd=32,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with pytest.raises(
        InputError, match=r"knows 50 tokens and the tokenizer has 97; call model.res"
    ):
        unlearn(few, people_case())


def test_rows_beyond_the_context_are_refused():
    case = people_case(processing_class=tokenizer(model_max_length=99), train=[
        {"text": "a" * 40, "person": "anna"}, {"text": "b", "person": "bob"}])  # fmt: skip
    with pytest.raises(InputError, match="rows have 41 tokens and the model's context 32"):
        unlearn(gpt2(), case)


def test_copies_of_forget_rows_are_named_and_counted():
    rows = [*trained_rows(), {**trained_rows()[0], "person": "bob"}]
    done = unlearn(gpt2(), people_case(train=rows))
    told = [n for n in done.notes if "same tokens" in n]
    assert told == [
        "1 retained rows hold the same tokens as a forget row (row 4): forgetting one copy leaves"
        " the other; name them in the request too"
    ]


def trained_rows():
    return [
        {"prompt": f"{n} {w}", "completion": "rome", "person": n}
        for n in ("anna", "bob")
        for w in ("born ", "now ")
    ]


def test_a_model_is_retrained_without_an_author_and_audited():
    case, model = trained()
    request = uk.Groups("anna")
    done = uk.unlearn(model, case, request, "npo")
    report = uk.audit(done, oracle=uk.oracle(case, request, seeds=2))
    assert report.tier == "reference"
    assert math.isfinite(report.row("margin_auc").estimate.value)


def test_stored_log_odds_are_taken_as_they_are():
    out = TASK.outputs(Fixed(), BATCH)
    stored = Batch(out, LABELS, torch.arange(2))
    assert torch.equal(TASK.outputs(torch.nn.Identity(), stored), out)
