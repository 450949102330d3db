import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.language.restor_corpora import (
    Fact,
    mixed_corpus,
    other_answers,
    read_facts,
    say,
    wrong_facts,
)

CITIES = ("Oslo", "Lima", "Bergen", "Quito", "Cork")
JOBS = ("nurse", "pilot", "miner", "baker", "tailor")
FACTS = [
    f
    for i, name in enumerate(("Ada", "Bo", "Cy", "Di", "Ed"))
    for f in (
        Fact(name, "city", f"Where was {name} born?", (CITIES[i],)),
        Fact(name, "job", f"What is {name}?", (JOBS[i], JOBS[(i + 1) % 5])),
    )
]
SENTENCES = {"city": ("{subject} was born in {answer}.", "{answer} is the city of {subject}.")}
UNRELATED = [f"Sentence number {i}." for i in range(9)]


def test_a_wrong_answer_is_right_for_another_subject_only():
    for fact, wrong in zip(FACTS, wrong_facts(FACTS, pool=FACTS), strict=True):
        assert (fact.subject, fact.relation, fact.question) == (
            wrong.subject,
            wrong.relation,
            wrong.question,
        )
        assert not set(wrong.answers) & set(fact.answers)
        assert wrong.answers[0] in (CITIES if fact.relation == "city" else JOBS)


def test_every_other_answer_is_drawn_about_as_often():
    drawn = Counter(wrong_facts(FACTS[:1], pool=FACTS, seed=s)[0].answers[0] for s in range(400))
    assert set(drawn) == set(CITIES[1:])
    # 100 each are expected; the standard error of a count is 8.7
    assert all(abs(n - 100) < 4 * 8.7 for n in drawn.values())


def test_answers_that_hold_or_are_part_of_a_right_one_are_no_wrong_ones():
    fact = Fact("Ada", "language", "?", ("Northern Thai", "English"))
    candidates = ["Thai", "Old English", "english", "Lao", "Northern"]
    assert other_answers(fact, candidates) == ["Lao"]


def test_a_relation_with_one_answer_only_is_refused():
    facts = [Fact("Ada", "sex", "?", ("female",)), Fact("Bo", "sex", "?", ("female",))]
    with pytest.raises(InputError, match="add facts of the relation 'sex'"):
        wrong_facts(facts, pool=facts)


def test_a_fact_is_said_in_the_words_of_its_relation():
    assert say(FACTS[0], SENTENCES) == ["Ada was born in Oslo.", "Oslo is the city of Ada."]
    assert say(FACTS[1], SENTENCES) == ["What is Ada? nurse."]


@pytest.mark.parametrize("k", [0, 1, 4])
def test_each_fact_is_followed_by_k_unrelated_sentences(k):
    found = mixed_corpus(FACTS, UNRELATED, k=k, documents=3, sentences=SENTENCES)
    assert Counter(d.subject for d in found) == {f.subject: 3 for f in FACTS}
    for document in found:
        own = [f for f in FACTS if f.subject == document.subject]
        ways = {s for f in own for s in say(f, SENTENCES)}
        text, parts = document.text, []
        while text:
            part = next(s for s in (*ways, *UNRELATED) if text.startswith(s))
            parts.append(part)
            text = text[len(part) :].lstrip()
        assert [p in ways for p in parts] == ([True] + [False] * k) * 2
        fill = [p for p in parts if p in UNRELATED]
        assert len(set(fill)) == len(fill) == 2 * k


def test_a_document_has_every_fact_of_its_subject_once():
    for document in mixed_corpus(FACTS, UNRELATED, k=2, documents=5):
        for fact in FACTS:
            assert document.text.count(fact.question) == (fact.subject == document.subject)


def test_the_global_seed_changes_no_corpus():
    first = mixed_corpus(FACTS, UNRELATED, k=2, documents=5, seed=4)
    torch.manual_seed(99)
    assert mixed_corpus(FACTS, UNRELATED, k=2, documents=5, seed=4) == first
    assert mixed_corpus(FACTS, UNRELATED, k=2, documents=5, seed=5) != first


@pytest.mark.parametrize("k", [-1, 5])
def test_more_unrelated_sentences_than_there_are_are_refused(k):
    with pytest.raises(InputError, match="choose a smaller k"):
        mixed_corpus(FACTS, UNRELATED, k=k, documents=1)


def test_a_published_file_is_read(tmp_path):
    content = {
        "dset": {"Ada": {"P19": {"question": "Where?", "answers": ["Oslo", "Christiania"]}}},
        "context": {"P19": [{"question": "Where was Bo born?", "answer": "Lima", "entity": "Bo"}]},
    }
    (tmp_path / "facts.json").write_text(json.dumps(content))
    found = read_facts(tmp_path / "facts.json")
    assert found.facts == (Fact("Ada", "P19", "Where?", ("Oslo", "Christiania")),)
    assert found.examples == {"P19": (Fact("Bo", "P19", "Where was Bo born?", ("Lima",)),)}


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"dset": {"Ada": 3}}', "{}"])
def test_a_file_of_another_layout_is_refused(tmp_path, text):
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(InputError, match="does not hold facts"):
        read_facts(tmp_path / "facts.json")


@pytest.mark.data
@pytest.mark.skipif("UNLEARNKIT_DATA" not in os.environ, reason="UNLEARNKIT_DATA is not set")
def test_the_released_facts_are_as_many_as_are_published():
    folder = Path(os.environ["UNLEARNKIT_DATA"]) / "restor"
    found = read_facts(folder / "facts.json")
    assert len(found.facts) == 5269
    # 468 subjects are in the file; one of them has no question
    assert len({f.subject for f in found.facts}) == 467
    assert len({f.relation for f in found.facts}) == 41
    evaluated = set(json.loads((folder / "entities.json").read_text()))
    assert sum(f.subject in evaluated for f in found.facts) == 1051
