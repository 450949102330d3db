from collections import Counter

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.language.fictitious_authors import (
    TEMPLATES,
    VALUES,
    author_questions,
    invent_authors,
)

MOST = 288


@pytest.fixture(scope="module")
def authors():
    return invent_authors(MOST, seed=3)


@pytest.fixture(scope="module")
def questions(authors):
    return author_questions(authors, seed=3)


def test_a_seed_makes_the_same_authors_whatever_the_global_seed_is():
    first = author_questions(invent_authors(20, seed=1), seed=1)
    torch.manual_seed(99)
    assert author_questions(invent_authors(20, seed=1), seed=1) == first


def test_another_seed_makes_other_authors():
    assert invent_authors(20, seed=1) != invent_authors(20, seed=2)


def test_names_and_titles_are_unique(authors):
    assert len({a.name for a in authors}) == MOST
    books = [a.attributes[b] for a in authors for b in ("first_book", "last_book")]
    assert len(set(books)) == 2 * MOST


def test_questions_are_unique(questions):
    assert len({q.question for q in questions} | {q.paraphrased_question for q in questions}) == (
        2 * len(questions)
    )


def test_each_author_has_a_question_for_each_attribute(authors, questions):
    assert set(Counter(q.author for q in questions).values()) == {len(TEMPLATES)}
    assert {t.attribute for t in TEMPLATES} == set(authors[0].attributes)
    assert len({t.attribute for t in TEMPLATES}) == len(TEMPLATES)


def test_every_question_and_answer_names_the_author(questions):
    for q in questions:
        texts = (q.question, q.answer, q.paraphrased_question, q.paraphrased_answer)
        assert all(q.author in t for t in (*texts, *q.wrong_answers))


def test_right_answers_hold_the_value_and_wrong_ones_do_not(authors, questions):
    of = {a.name: a.attributes for a in authors}
    for q in questions:
        value = of[q.author][q.attribute]
        assert value == q.value
        assert value in q.answer
        assert value in q.paraphrased_answer
        assert not any(f"{value}." in w for w in q.wrong_answers)


def test_wrong_answers_differ_and_have_the_words_of_the_paraphrase(questions):
    for q in questions:
        frame = q.paraphrased_answer.split(q.value)
        assert len(set(q.wrong_answers)) == 4
        assert q.paraphrased_answer not in q.wrong_answers
        assert q.answer != q.paraphrased_answer
        for wrong in q.wrong_answers:
            assert wrong.startswith(frame[0])
            assert wrong.endswith(frame[-1])


def test_a_template_has_four_different_texts():
    texts = [t for x in TEMPLATES for t in (x.question, x.other_question, x.answer, x.other_answer)]
    assert len(set(texts)) == 4 * len(TEMPLATES)
    assert all(t.count("{name}") == 1 for t in texts)
    assert all(t.count("{value}") == (not t.endswith("?")) for t in texts)


@pytest.mark.parametrize("attribute", VALUES)
def test_values_of_an_attribute_are_distinct_and_all_in_use(authors, attribute):
    assert len(set(VALUES[attribute])) == len(VALUES[attribute])
    seen = {a.attributes[attribute] for a in authors}
    assert seen <= set(VALUES[attribute])
    assert len(seen) > 0.9 * len(VALUES[attribute])


@pytest.mark.parametrize("count", [0, -1, MOST + 1])
def test_more_authors_than_names_are_refused(count):
    with pytest.raises(InputError, match=f"count must be in 1 to {MOST}"):
        invent_authors(count)


def test_more_wrong_answers_than_values_are_refused():
    with pytest.raises(InputError, match="make more authors"):
        author_questions(invent_authors(2), wrong=5)
