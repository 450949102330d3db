"""Answer matching: whether a text gives one of several right answers, without a judge."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ARTICLES = {"a", "an", "the"}


def answer_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without accents, punctuation and articles."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    return [w for w in re.findall(r"\w+", plain) if w not in ARTICLES]


def matches_any(text: str, answers: Sequence[str]) -> bool:
    """Return whether the first line of a text holds all words of an answer, one after another."""
    said = answer_words(text.lstrip().split("\n", 1)[0])
    return any(_within(answer_words(answer), said) for answer in answers)


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(whole[i : i + size] == part for i in range(len(whole) - size + 1))
