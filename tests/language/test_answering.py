import pytest
import torch

from experiments.word_models import small_gpt2, word_tokenizer
from unlearnkit.core.errors import InputError
from unlearnkit.language.answering import greedy_answers, score_answers
from unlearnkit.language.token_scores import mean_log_probs

PROMPTS = ["where was she born ?", "which prize ?", "who ?", "where was he born ?"]
ANSWERS = ["in a city by the sea", "none", "she was", "far away"]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([*PROMPTS, *ANSWERS])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return small_gpt2(len(tokenizer), width=16, layers=1, context=64).double().eval()


def one_by_one(model, tokenizer, prompt, answer):
    """Yield the log-probability of each token of an answer, each from a pass of its own."""
    ids = tokenizer(prompt)["input_ids"]
    for token in tokenizer(answer)["input_ids"]:
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        yield logits.log_softmax(-1)[token].item()
        ids = [*ids, token]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_are_those_of_the_answers_tokens_alone(model, tokenizer, batch_size):
    got = score_answers(model, tokenizer, PROMPTS, ANSWERS, batch_size=batch_size)
    for score, prompt, answer in zip(got, PROMPTS, ANSWERS, strict=True):
        want = list(one_by_one(model, tokenizer, prompt, answer))
        assert score.log_probs.tolist() == pytest.approx(want, abs=1e-9)


def test_without_a_prompt_the_first_token_does_not_count(model, tokenizer):
    (score,) = score_answers(model, tokenizer, [""], ["she was born"])
    want = list(one_by_one(model, tokenizer, "she", "was born"))
    assert score.log_probs.tolist() == pytest.approx(want, abs=1e-9)


def test_the_model_keeps_its_mode_and_its_gradients(model, tokenizer):
    model.train()
    score_answers(model, tokenizer, PROMPTS, ANSWERS)
    greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=2)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    model.eval()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_answers_follow_the_most_probable_token(model, tokenizer, batch_size):
    got = greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=5, batch_size=batch_size)
    for prompt, text in zip(PROMPTS, got, strict=True):
        ids, said = tokenizer(prompt)["input_ids"], []
        while len(said) < 5:
            token = int(model(input_ids=torch.tensor([[*ids, *said]])).logits[0, -1].argmax())
            said.append(token)
            if token == tokenizer.eos_token_id:
                break
        assert text == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_a_greedy_answer_is_extracted_whole(model, tokenizer):
    said = greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=4)
    answered = [(p, s) for p, s in zip(PROMPTS, said, strict=True) if s]
    assert answered
    prompts, texts = zip(*answered, strict=True)
    assert all(s.correct.all() for s in score_answers(model, tokenizer, prompts, texts))


def test_an_answer_without_tokens_has_no_score(model, tokenizer):
    assert mean_log_probs(score_answers(model, tokenizer, PROMPTS[:1], [""])).isnan().all()


def test_a_text_longer_than_the_context_is_refused(model, tokenizer):
    long = "she " * 70
    with pytest.raises(InputError, match="the model takes 64"):
        score_answers(model, tokenizer, [long], ["was"])
    with pytest.raises(InputError, match="the model takes 64"):
        greedy_answers(model, tokenizer, ["she " * 60], max_new_tokens=5)


def test_answers_without_prompts_of_their_own_are_refused(model, tokenizer):
    with pytest.raises(InputError, match="need as many answers"):
        score_answers(model, tokenizer, PROMPTS, ANSWERS[:2])


def test_an_empty_prompt_has_no_greedy_answer(model, tokenizer):
    with pytest.raises(InputError, match="leave out empty ones"):
        greedy_answers(model, tokenizer, ["who ?", ""])
