from itertools import combinations

import pytest

from unlearnkit.language.rouge import longest_common_subsequence, rouge_l


def by_all_subsequences(a, b):
    def within(part, whole):
        rest = iter(whole)
        return all(x in rest for x in part)

    return max(n for n in range(len(a) + 1) if any(within(c, b) for c in combinations(a, n)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("abcbdab", "bdcaba"),
        ("", "abc"),
        ("aaaa", "aa"),
        ("abcdef", "fedcba"),
        ("xaybzc", "abc"),
        ("abab", "baba"),
    ],
)
def test_the_common_subsequence_is_the_longest_of_all(a, b):
    assert longest_common_subsequence(a, b) == by_all_subsequences(a, b)
    assert longest_common_subsequence(b, a) == by_all_subsequences(b, a)


@pytest.mark.parametrize(
    ("answer", "reference", "recall", "precision", "f1"),
    [
        # the package rouge-score 0.1.2 without stemmer gives these
        ("police kill the gunman", "police killed the gunman", 0.75, 0.75, 0.75),
        ("The cat, it sat on THE mat!", "the cat sat on the mat", 1.0, 6 / 7, 12 / 13),
        ("Born in 1955 - in Berlin", "She was born in Berlin in 1955.", 3 / 7, 3 / 5, 0.5),
        ("nothing alike", "some other words", 0.0, 0.0, 0.0),
        ("", "words", 0.0, 0.0, 0.0),
        ("words", "?!", 0.0, 0.0, 0.0),
    ],
)
def test_shares_of_words(answer, reference, recall, precision, f1):
    found = rouge_l(answer, reference)
    assert (found.recall, found.precision) == pytest.approx((recall, precision))
    assert found.f1 == pytest.approx(f1)
