"""Who's Harry Potter at decode time: the logits by hand, the answers of ``generate``."""

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import gpt2, tokenizer, trained
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.language.reinforced_difference import ReinforcedDifference, generic_logits
from unlearnkit.train.early_stopping import OFF

ANNA = uk.Groups("anna")


def pair(alpha):
    torch.manual_seed(3)
    return ReinforcedDifference(gpt2(), gpt2(), alpha).eval()


def test_a_token_loses_what_reinforcement_added_and_no_other_token_changes():
    base, more = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.5, 1.0, 0.5])
    got = generic_logits(base, more, 4.0)
    torch.testing.assert_close(got, torch.tensor([1.0 - 4 * 0.5, 2.0, 0.5]))


@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_the_model_of_both_returns_the_corrected_logits(alpha):
    both = pair(alpha)
    ids = torch.randint(2, 97, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, z, r = (m(input_ids=ids).logits for m in (both, both.base, both.reinforced))
    torch.testing.assert_close(got, z - alpha * torch.clamp(r - z, min=0), rtol=0, atol=1e-6)
    assert bool(alpha) != torch.equal(got, z)


def test_generate_takes_the_most_probable_corrected_token_of_each_prompt():
    both = pair(5.0)
    ids = torch.tensor([[1, 1, 40, 41], [50, 51, 52, 53]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    got = both.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=3, pad_token_id=1
    )
    plain = both.base.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=3, pad_token_id=1
    )
    for row, start in ((0, 2), (1, 0)):
        said = ids[row, start:].tolist()
        for _ in range(3):
            with torch.no_grad():
                said.append(int(both(input_ids=torch.tensor([said])).logits[0, -1].argmax()))
        assert got[row].tolist()[start : len(said) + start] == said[: 4 + 3 - start]
    assert not torch.equal(got, plain)


def test_a_forgotten_answer_is_less_likely_the_rest_stays_and_both_models_are_in_the_result():
    case, model = trained()
    done = uk.unlearn(model, case, ANNA, "whp")
    assert isinstance(done.model, ReinforcedDifference)
    for n, t in model.state_dict().items():
        assert torch.equal(done.model.base.state_dict()[n], t), n
    assert any("hides and deletes nothing" in note for note in done.notes)
    parts = done.parts

    def loss(net, view):
        batch = next(view.batches(len(view), uk.Runtime()))
        with torch.no_grad():
            return case.task.losses(case.task.outputs(net.eval(), batch), batch).mean().item()

    gone, kept = ([loss(m, v) for m in (model, done.model)] for v in (parts.forget, parts.retain))
    assert gone[1] > gone[0] + 0.5
    assert kept[1] - kept[0] < gone[1] - gone[0]


def test_without_reinforcement_nothing_changes():
    case, model = trained()
    how = uk.method("whp", run={"share": 0.0})
    done = uk.unlearn(model, case, ANNA, how)
    x = next(done.parts.forget.batches(2, uk.Runtime())).x
    with torch.no_grad():
        assert torch.equal(done.model.eval()(**x).logits, model.eval()(**x).logits)


def test_a_mask_and_an_adapter_are_refused():
    case, model = trained()
    with pytest.raises(UnsupportedError, match="a mask cannot hold"):
        uk.unlearn(model, case, ANNA, "whp", mask=uk.Localizer(criterion="weighted_grad"))
    pytest.importorskip("peft")
    adapted = uk.unlearn(model, case, ANNA, uk.method("npo", peft_config={"r": 2}, guard=OFF)).model
    with pytest.raises(UnsupportedError, match="merge_and_unload"):
        uk.unlearn(adapted, case, ANNA, "whp")


def test_its_greedy_answers_can_be_read():
    from unlearnkit.language import greedy_answers

    case, model = trained()
    done = uk.unlearn(model, case, ANNA, uk.method("whp", alpha=0.0))
    prompts = ["anna born ", "bob now "]
    got, want = (
        greedy_answers(m, tokenizer(), prompts, max_new_tokens=5) for m in (done.model, model)
    )
    assert got == want
