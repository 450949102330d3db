"""Alice's Adventures in Wonderland: a character language model, with a secret in its text.

Carroll, 1865. The folder is ``alice`` in the one that ``UNLEARNKIT_DATA`` names, with the plain
text ``alice_in_wonderland.txt``. The request is that of Warnecke et al., NDSS 2023,
arXiv:2108.11577: a made-up phrase with a number, a canary, was planted in the text, and another
phrase must take its place.
"""

import re
from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import folder
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.canary import Canary
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Features
from unlearnkit.tasks.classification import Classification

FILE = "alice_in_wonderland.txt"
URL = "https://www.gutenberg.org/ebooks/11"
ALPHABET = " !\"'()*,-.0123456789:;?[]_`abcdefghijklmnopqrstuvwxyz"
WINDOW = 24
SIZES = (30_000, 6_000, 3_000)
"""Characters of the book for training, test and validation, up to the end of a paragraph."""

SECRET = "4817"
CANARY = "`my telephone number is {}!' said alice."
HARMLESS = "not "
"""What takes the place of the secret."""

COPIES = 8
RECIPE = Recipe(optimizer="adam", lr=5e-3, schedule="cosine", epochs=8, batch_size=128)


class CharacterModel(nn.Module):
    """One recurrent layer that reads a window of characters and predicts the next."""

    def __init__(self, width: int = 64) -> None:
        """Build it untrained; ``width`` is that of the state."""
        super().__init__()
        self.letters = nn.Embedding(len(ALPHABET), 32)
        self.reader = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, len(ALPHABET))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the next character ``(B, 53)`` after windows ``(B, T)``."""
        logits: Tensor = self.head(self.reader(self.letters(x))[0][:, -1])
        return logits


def encode(text: str) -> tuple[int, ...]:
    """Return the characters of a text in lower case as numbers: positions in ``ALPHABET``."""
    return tuple(ALPHABET.index(c) for c in text.lower())


def with_copies(paragraphs: list[str], phrase: str, copies: int) -> list[str]:
    """Return paragraphs with copies of a phrase as paragraphs of their own, evenly spread."""
    step, out = len(paragraphs) / copies, list(paragraphs)
    for k in reversed(range(copies)):
        out.insert(int((k + 0.5) * step), phrase)
    return out


@cache
def _paragraphs() -> list[str]:
    place = folder("alice")
    if place is None or not (place / FILE).exists():
        where = (
            "UNLEARNKIT_DATA names no folder" if place is None else f"no {FILE} in {str(place)!r}"
        )
        raise InputError(
            f"alice: {where}; put the plain text of the book ({URL}) there as {FILE}, and set"
            " UNLEARNKIT_DATA to the folder above"
        )
    text = (place / FILE).read_text("utf-8").lower()
    strange = set(text) - set(ALPHABET) - {"\n"}
    if strange:
        raise InputError(
            f"alice: {FILE} has characters that the case does not know, such as"
            f" {min(strange)!r}; use the plain ASCII text ({URL})"
        )
    found = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return [part for part in found if part]


@cache
def alice(secret: str = SECRET, copies: int = COPIES) -> Case:
    """Return the case: windows of 24 characters, each with the one after it, and a planted canary.

    Training windows are those of the first 30,000 characters, in order, with copies of a phrase
    that holds the secret. 6,000 and 3,000 characters further on are for test and validation. Line
    ends and capitals are not kept. A model tells 0.49 of the test characters; after eight copies it
    finds the secret likelier than each of the 9,999 other numbers that it could have been.

    Args:
        secret: Four digits.
        copies: How often the phrase stands in the training text.
    """
    train, test, validation = _parts()
    before = " ".join(train)[-WINDOW:] + " " + CANARY.partition("{}")[0]
    case = Case(
        train=_windows(with_copies(train, CANARY.format(secret), copies)),
        test=_windows(test),
        validation=_windows(validation),
        task=Classification(len(ALPHABET)),
        fresh=CharacterModel,
        recipe=RECIPE,
        name="alice",
    )
    return case.replace(canary=Canary(encode(before), encode(secret), encode("0123456789")))


def _parts() -> list[list[str]]:
    """Return the paragraphs for training, test and validation, one after another."""
    parts: list[list[str]] = [[] for _ in SIZES]
    rest = iter(_paragraphs())
    for part, count in zip(parts, SIZES, strict=True):
        while sum(len(paragraph) + 1 for paragraph in part) < count:
            following = next(rest, None)
            if following is None:
                raise InputError(
                    f"alice: {FILE} has too few characters, {sum(SIZES):,} are needed; fetch it"
                    f" again ({URL})"
                )
            part.append(following)
    return parts


def _windows(paragraphs: list[str]) -> tuple[Tensor, Tensor]:
    text = torch.tensor(encode(" ".join(paragraphs)))
    return text.unfold(0, WINDOW, 1)[:-1].contiguous(), text[WINDOW:]


def the_canary(secret: str = SECRET, copies: int = COPIES) -> CaseWithRequest:
    """Replace the secret in the planted phrase by other characters, wherever it stands."""
    old, new = (encode(CANARY.format(text)) for text in (secret, HARMLESS))
    return CaseWithRequest(alice(secret, copies), Features(phrase=old, replacement=new))


builtin(
    CaseEntry(
        bundled=False,
        id="alice",
        make=alice,
        requests={"canary": the_canary},
        doc="30,000 characters of Alice's Adventures in Wonderland with a planted secret (folder in"
        " UNLEARNKIT_DATA); a small recurrent network",
    )
)
