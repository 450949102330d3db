import pytest
import torch

from experiments.word_models import small_gpt2, word_tokenizer
from unlearnkit.core.errors import InputError
from unlearnkit.language.answer_matching import matches_any
from unlearnkit.language.answering import score_answers
from unlearnkit.language.fictitious_authors import (
    author_facts,
    author_questions,
    author_sentences,
    invent_authors,
)
from unlearnkit.language.restor import (
    RestorQuestion,
    ask_all,
    restor_answers,
    restor_questions,
)
from unlearnkit.language.restor_corpora import Fact, say, wrong_facts


def same(model):
    return model


def untrained(tokenizer, seed):
    torch.manual_seed(seed)
    return small_gpt2(len(tokenizer), width=16, layers=1).eval()


@pytest.fixture(scope="module")
def facts():
    return author_facts(author_questions(invent_authors(8)))


@pytest.fixture(scope="module")
def questions(facts):
    wrong = wrong_facts(facts, pool=facts)
    return restor_questions(
        facts, wrong, [f.subject != facts[0].subject for f in facts], pool=facts, shots=0
    )


@pytest.fixture(scope="module")
def tokenizer(facts):
    return word_tokenizer(s for f in facts for s in (*say(f, author_sentences()), *say(f, {})))


@pytest.fixture(scope="module")
def model(tokenizer):
    return untrained(tokenizer, 0)


def test_options_are_true_wrong_or_neither(facts, questions):
    for fact, question in zip(facts, questions, strict=True):
        assert question.prompt == fact.question
        assert question.true_options == fact.answers
        assert 1 <= len(question.random_options) <= 3
        for option in (*question.wrong_options, *question.random_options):
            assert not matches_any(option, question.true_options)
        assert not set(question.wrong_options) & set(question.random_options)


def test_controls_are_those_that_are_named(facts, questions):
    assert [q.control for q in questions] == [f.subject != facts[0].subject for f in facts]


def test_examples_are_about_other_subjects():
    fact = Fact("Ada", "city", "Where was Ada born?", ("Oslo",))
    examples = [
        Fact(n, "city", f"Where was {n} born?", (c,))
        for n, c in zip(("Ada", "Bo", "Cy", "Di"), ("Oslo", "Lima", "Cork", "Quito"), strict=True)
    ]
    wrong = [Fact("Ada", "city", "Where was Ada born?", ("Lima",))]
    (question,) = restor_questions(
        [fact], wrong, [False], pool=examples, examples={"city": examples}, shots=2
    )
    assert question.prompt == (
        "Where was Bo born? Lima\nWhere was Cy born? Cork\nWhere was Ada born?"
    )


def test_lists_of_other_lengths_are_refused(facts):
    with pytest.raises(InputError, match="as many wrong ones and controls"):
        restor_questions(facts, facts[1:], [True] * len(facts), pool=facts)


def test_the_choice_is_the_most_probable_option(model, tokenizer, questions):
    found = restor_answers(model, tokenizer, questions[:10])
    for question, answer in zip(questions[:10], found, strict=True):
        options = (*question.true_options, *question.wrong_options, *question.random_options)
        level = {
            o: score_answers(model, tokenizer, [question.prompt], [o])[0].log_probs.mean().item()
            for o in options
        }
        best = max(options, key=level.get)
        assert answer.true_choice == (best in question.true_options)
        assert answer.wrong_choice == (best in question.wrong_options)
        random = [level[o] for o in question.random_options]
        assert answer.true_level == pytest.approx(level[question.true_options[0]], abs=1e-5)
        assert answer.wrong_level == pytest.approx(level[question.wrong_options[0]], abs=1e-5)
        assert answer.random_level == pytest.approx(sum(random) / len(random), abs=1e-5)
        assert answer.true_words == matches_any(answer.text, question.true_options)


def test_the_same_model_gives_the_same_answers_under_every_name(model, tokenizer, questions):
    found = ask_all({"clean": model, "unlearned": model}, tokenizer, questions, same)
    assert found["clean"] == found["unlearned"]


def test_every_model_is_repaired_in_the_same_way(model, tokenizer, questions):
    seen = []

    def repair(m):
        seen.append(m)
        return untrained(tokenizer, 7)

    other = untrained(tokenizer, 3)
    found = ask_all({"clean": model, "corrupted": other}, tokenizer, questions, repair)
    assert seen == [model, other]
    assert found["clean"] == found["corrupted"]
    assert found["clean"] != restor_answers(model, tokenizer, questions)


def test_a_model_that_gives_every_option_the_same_chooses_none(tokenizer):
    model = untrained(tokenizer, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    question = RestorQuestion("Ada", "Where ?", ("Oslo",), ("Lima",), ("Cork",), control=False)
    (answer,) = restor_answers(model, tokenizer, [question])
    assert not answer.true_choice
    assert not answer.wrong_choice
