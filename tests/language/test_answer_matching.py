import pytest

from unlearnkit.language.answer_matching import answer_words, matches_any


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("Paris", ["paris"]),
        ("It is in PARIS, France.", ["Lyon", "Paris"]),
        ("the Order of the Nine Gems", ["Order of Nine Gems"]),
        ("Sao Paulo", ["São Paulo"]),
        ("São Paulo", ["Sao Paulo"]),
        ("  Paris\nRome", ["Paris"]),
        ("Straße", ["STRASSE"]),
        ("He speaks Northern Thai language", ["Northern Thai"]),
    ],
)
def test_an_answer_within_the_first_line_is_right(text, answers):
    assert matches_any(text, answers)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("Paris", ["Rome"]),
        ("Parisian", ["Paris"]),
        ("Northern or Thai", ["Northern Thai"]),
        ("Rome\nParis", ["Paris"]),
        ("", ["Paris"]),
        ("Paris", []),
        ("Paris", ["", "the", "?!"]),
        ("Thai Northern", ["Northern Thai"]),
    ],
)
def test_another_text_is_wrong(text, answers):
    assert not matches_any(text, answers)


def test_words_are_without_accents_punctuation_and_articles():
    assert answer_words("The Café -- in A Coruña (1889)!") == ["cafe", "in", "coruna", "1889"]
