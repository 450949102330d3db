"""Attacks on what was forgotten, each on a model that only hides."""

import copy
import math

import pytest
import torch
from torch import nn

import unlearnkit as uk
from tests.language.tiny import people_case, questions, tokenizer, trained
from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.splits import choose
from unlearnkit.catalog import metrics
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.weight_rounding import rounded_copy
from unlearnkit.unlearning.outside_model import unlearned_outside

ANNA = uk.Groups("anna")
REFUSAL = 2 + ord("?") - 32


class Filter(nn.Module):
    """A model that gives a refusal the first place of an answer, at prompts that it knows."""

    def __init__(self, inside, prompts, share):
        super().__init__()
        self.inside, self.prompts, self.share = inside, prompts, share

    @property
    def config(self):
        return self.inside.config

    def forward(self, input_ids, attention_mask):
        z = self.inside(input_ids=input_ids, attention_mask=attention_mask).logits.clone()
        for i, row in enumerate(input_ids.tolist()):
            for prompt in self.prompts:
                if row[: len(prompt)] == prompt:
                    p = (1 - self.share) * z[i, len(prompt) - 1].softmax(-1)
                    p[REFUSAL] += self.share
                    z[i, len(prompt) - 1] = p.log()
        return z


def case_with_other_words():
    rows = [
        {**row, "paraphrased_question": f"{row['prompt'].split()[0]} hails "}
        for row in questions()
    ]  # fmt: skip
    return people_case(train=rows)


def ids(text):
    return tokenizer()(text)["input_ids"]


def filtered(model, share=0.8):
    return Filter(model, [ids("anna born "), ids("anna now ")], share).eval()


def evidence(model, case=None, original=None):
    case = case or trained()[0]
    given = copy.deepcopy(original or trained()[1])
    done = unlearned_outside(model, given, case, ANNA, Runtime())
    views = choose(case, done.parts, Runtime(), ANNA).views
    return evidence_of(done, views, Runtime())


def value(name, *args):
    return metrics()[name](evidence(*args)).value


def test_a_filter_hides_the_answer_and_sampling_finds_it():
    _, model = trained()
    found = [value("answer_probability_forget", m) for m in (model, filtered(model))]
    assert found[1] < 0.8 * found[0]
    assert value("sampled_answer_at_32", filtered(model)) > 0.5
    assert value("sampled_answer_at_32", filtered(model, 1.0 - 1e-6)) < 0.01


def test_the_chance_of_a_sampled_answer_is_that_of_drawing():
    e = evidence(filtered(trained()[1]))
    p = []
    for batch in e.views["forget"].batches(1, Runtime()):
        with torch.no_grad():
            logs = e.model("unlearned")(**batch.x)[:, :-1].log_softmax(-1)
        there = batch.y[:, 1:] != -100
        p.append(
            math.exp(logs.gather(-1, (batch.y[:, 1:] * there)[..., None])[..., 0][there].sum())
        )
    want = sum(1 - (1 - x) ** 32 for x in p) / len(p)
    assert metrics()["sampled_answer_at_32"](e).value == pytest.approx(want, rel=1e-4)


def test_a_filter_on_the_question_s_words_misses_the_question_in_other_words():
    case, (_, model) = case_with_other_words(), trained()
    hidden, plain = (
        value("paraphrased_question_probability", m, case) for m in (filtered(model), model)
    )
    assert hidden == pytest.approx(plain, rel=1e-6)
    assert (
        "paraphrased_question"
        in metrics()["paraphrased_question_probability"](evidence(model)).note
    )


def test_a_filter_at_the_start_of_a_text_misses_a_question_after_a_hint():
    _, model = trained()
    both = [value("hinted_answer_probability", m) for m in (filtered(model), model)]
    # The hint begins with a known prompt: the filter bites there alone, before any label.
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def shifted(model, gain=0.49):
    """Return the model moved uphill on the forget rows, never across a border of 4-bit rounding."""
    case, _ = trained()
    batch = next(case.partition(ANNA).forget.batches(2, Runtime()))
    moved = rounded_copy(model, 4)
    case.task.losses(case.task.outputs(moved, batch), batch).mean().backward()
    with torch.no_grad():
        for module in moved.modules():
            if type(module).__name__ != "Conv1D":
                continue
            w, flat = module.weight, module.weight.mT.reshape(-1)
            blocks = nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)
            top = blocks.abs().amax(1, keepdim=True)
            # The narrowest cell of NF4 is 0.0796 of the block's largest weight.
            room = gain * 0.0796 * top.expand_as(blocks)
            room = torch.where(blocks.abs() == top, 0.0, room).reshape(-1)[: len(flat)]
            w += w.grad.sign() * room.view_as(w.mT).mT
    return moved.requires_grad_(True).eval()


def test_four_bits_undo_a_shift_that_stays_between_their_levels():
    _, model = trained()
    coarse = rounded_copy(model, 4).eval()
    hidden = shifted(model)
    plain, hid = (value("answer_probability_forget", m) for m in (coarse, hidden))
    assert hid < 0.4 * plain
    assert value("rounded_4_bit_probability", hidden) == pytest.approx(plain, rel=1e-4)
    assert value("rounded_8_bit_probability", hidden) == pytest.approx(hid, rel=0.1)
    assert (
        f"{hid:.3f} before rounding"
        in metrics()["rounded_4_bit_probability"](evidence(hidden)).note
    )


def test_what_was_hidden_is_learned_again_sooner_than_by_a_model_that_never_saw_it():
    case, model = trained()
    never = uk.oracle(case, ANNA, seeds=1).runs[0].model
    hidden = uk.unlearn(model, case, ANNA, uk.method("npo", run={"share": 0.04})).model
    steps = [value("relearn_forgotten_steps", m) for m in (model, hidden, never)]
    assert steps[0] == 0
    assert 0 <= steps[1] < steps[2]


def test_an_audit_computes_them_only_where_it_is_told_to():
    case, model = trained()
    done = uk.unlearn(model, case, ANNA, uk.method("npo", run={"share": 0.04}))
    plain = uk.audit(done, recipe_check=False)
    told = uk.audit(done, recipe_check=False, robustness=True)
    names = {i for i, m in metrics().items() if m.opt_in}
    assert len(names) == 6
    assert not names & {r.metric for r in plain.rows}
    assert names <= {r.metric for r in told.rows}
    assert "ROBUSTNESS OF THE FORGETTING" in told.full().upper()
    assert {r.metric for r in told.rows} - names == {r.metric for r in plain.rows}
