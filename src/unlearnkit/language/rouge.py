"""ROUGE-L: the longest common word sequence of an answer and its reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RougeL:
    """Shares in [0, 1] of the words in the longest common subsequence."""

    recall: float
    """Of the reference's words."""

    precision: float
    """Of the answer's words."""

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; 0 where both are."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


def rouge_l(answer: str, reference: str) -> RougeL:
    """Return ROUGE-L of an answer, without a stemmer.

    Lin, ACL workshop 2004, section 3.1; lower case, words of ASCII letters and digits, as in the
    package ``rouge-score``, whose stemmer is off here: numbers with a stemmer do not compare. All
    shares are 0 where either text has no words.
    """
    said, wanted = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, reference))
    if not said or not wanted:
        return RougeL(0.0, 0.0)
    common = longest_common_subsequence(said, wanted)
    return RougeL(common / len(wanted), common / len(said))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest sequence that both contain, gaps allowed."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]
