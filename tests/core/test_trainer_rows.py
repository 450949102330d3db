"""Rows as a Trainer of transformers takes them: dicts with labels, a collator, several lengths."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError

N = 24


def row(i, name="labels"):
    length = 2 + i % 4
    ids = [1 + (i + j) % 9 for j in range(length)]
    return {"input_ids": ids, "attention_mask": [1] * length, name: i % 2}


ROWS = [row(i) for i in range(N)]


def pad(features):
    """Pad as DataCollatorWithPadding does, to the longest of the batch."""
    width = max(len(f["input_ids"]) for f in features)
    rows = {n: [f[n] + [0] * (width - len(f[n])) for f in features] for n in features[0]}
    return {n: torch.tensor(r) for n, r in rows.items()}


class Mean(nn.Module):
    """The mean of the embeddings of the tokens that count, then a line."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        m = attention_mask[..., None].float()
        return {"logits": self.head((self.embed(input_ids) * m).sum(1) / m.sum(1))}


def make():
    torch.manual_seed(0)
    return Mean()


def case(rows=None, **more):
    given = {"train": ROWS if rows is None else rows, "data_collator": pad, "fresh": make}
    recipe = uk.Recipe(lr=0.05, epochs=2, batch_size=8)
    return uk.Case(**{**given, "task": "classification", "recipe": recipe} | more)


def read(data, size):
    rt = uk.Runtime()
    return [b.x for b in View.all(data).batches(size, rt)]


class Trainable(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return row(i, "label")


def hub():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    return datasets.Dataset.from_list([row(i, "stars") | {"text": "x"} for i in range(N)])


FORMS = {
    "list": case,
    "set": lambda: case(Trainable()),
    "hub": lambda: case(hub(), target="stars", inputs=("input_ids", "attention_mask")),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_inputs_and_targets_of_the_rows(form):
    made = FORMS[form]()
    assert made.train.y.tolist() == [i % 2 for i in range(N)]
    for size in (3, N):
        x = {n: torch.cat([b[n] for b in read(made.train, size)]) for n in ("input_ids",)}
        for i in range(N):
            want = torch.tensor(ROWS[i]["input_ids"])
            assert torch.equal(x["input_ids"][i], nn.functional.pad(want, (0, 5 - len(want))))


def test_all_batches_have_the_width_of_the_longest_row_and_none_of_its_content():
    widths = {b["input_ids"].shape[1] for b in read(case().train, 2)}
    assert widths == {5}
    assert all(not any(r["input_ids"]) for r in case().train.collate.longest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["finetune", "ssd", "relabel"])
def test_padding_does_not_change_what_a_model_learns(form, method):
    inputs = [{n: v for n, v in r.items() if n != "labels"} for r in ROWS]
    same = case((pad(inputs), torch.arange(N) % 2), data_collator=None)
    got, want = (
        uk.unlearn(make(), c, uk.Rows(0, 5), method).model.state_dict()
        for c in (FORMS[form](), same)
    )
    assert all(torch.equal(got[n], want[n]) for n in want)


def test_an_audit_joins_rows_of_several_lengths():
    made = case(test=[row(i) for i in range(1, 13)], fresh=Mean)
    report = uk.audit(
        uk.unlearn(uk.train_original(made).model, made, uk.Rows(0, 5, 9), "finetune"),
        oracle=uk.oracle(made, uk.Rows(0, 5, 9), seeds=2),
    )
    assert report.request_summary.forget == 3


def test_a_deletion_and_keys_go_with_dict_rows():
    made = case(keys=[f"r{i}" for i in range(N)])
    left = made.after_deletion("rows=r5")
    assert left.partition(uk.Rows("r6")).forget.y.tolist() == [0]
    assert len(left.train) == N - 1


@pytest.mark.parametrize(
    ("make_case", "told"),
    [
        (lambda: case(data_collator=None), "give data_collator="),
        (lambda: case(target="stars"), "has no 'stars'; name the target: target=, one of"),
        (lambda: case([{"a": [1], "b": 2}, {"a": [1], "b": 3}, {"a": [1], "b": 3}]), "'labels'"),
        (lambda: case([row(0), row(1), row(2) | {"labels": [1, 2]}]), "targets differ in shape"),
        (
            lambda: case([{**row(i), "labels": [0, 3, 1, 2]} for i in range(9)]),
            "several answers a row",
        ),
    ],
    ids=["no collator", "no target", "no labels", "ragged targets", "token targets"],
)
def test_rows_that_no_case_can_be_made_of_are_refused(make_case, told):
    with pytest.raises(InputError) as error:
        uk.unlearn(make(), make_case(), uk.Rows(0), "finetune")
    assert told in str(error.value)


def test_a_classifier_of_transformers_is_unlearned_and_audited():
    hf = pytest.importorskip("transformers", reason="transformers is not installed")

    def small():
        return hf.BertForSequenceClassification(hf.BertConfig(
            vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8, max_position_embeddings=8, num_labels=2,
        ))  # fmt: skip

    made = case(fresh=small)
    for method in ("finetune", "ssd"):
        done = uk.unlearn(small(), made, uk.Rows(0, 5), method)
        assert type(done.model).__name__ == "BertForSequenceClassification"
    assert uk.audit(done, tier="fast").tier == "fast"
