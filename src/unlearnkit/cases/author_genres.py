"""Which genre an invented author writes: sentences with few labels, for a model with a store.

An author's genre stands in no other sentence about the author, and says nothing of another one. A
model that never saw an author can only guess: what it knows is what it remembers.
"""

import re
import zlib
from functools import cache

import torch
from torch import nn

from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups
from unlearnkit.language.fictitious_authors import (
    VALUES,
    FictitiousAuthor,
    author_questions,
    invent_authors,
)
from unlearnkit.retrieval.passage_reader import HashedWords, PassageReader
from unlearnkit.retrieval.retrieval_case import retrieval_case
from unlearnkit.tasks.classification import Classification

WORDS, LONGEST = 4096, 16
AUTHORS, UNSEEN = 40, 40
GENRES = VALUES["genre"][:4]
RECIPE = Recipe(optimizer="adam", lr=5e-3, schedule="cosine", epochs=30, batch_size=32)


def word_row(sentence: str) -> list[int]:
    """Return the words of a sentence as hashes in 1 to 4,095, filled with 0 to 16."""
    words = re.findall(r"[a-z0-9]+", sentence.lower())[:LONGEST]
    found = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in words]
    return found + [0] * (LONGEST - len(found))


def retriever() -> nn.Module:
    """Return the retriever: hashed words, fitted to nothing."""
    return HashedWords(WORDS)


def reader() -> nn.Module:
    """Return an untrained reader."""
    return PassageReader(WORDS, len(GENRES))


def sentences(authors: list[FictitiousAuthor], kinds: slice, first: int) -> TensorData:
    """Return some sentences about each author, with the author's genre and number."""
    rows = []
    for number, author in enumerate(authors, first):
        said = [q for q in author_questions([author], wrong=0) if q.attribute != "genre"]
        genre = GENRES.index(author.attributes["genre"])
        rows += [(word_row(q.answer), genre, number) for q in said[kinds]]
    x, y, group = (torch.tensor(column) for column in zip(*rows, strict=True))
    return TensorData(x, y, group)


@cache
def author_genres() -> Case:
    """Return the case: 6 sentences about each of 40 authors to train on, 4 to test; 4 genres.

    ``held_out`` are sentences about 40 other authors. A row's group is the author's number.
    """
    found = [a for a in invent_authors(230) if a.attributes["genre"] in GENRES]
    known, unseen = found[:AUTHORS], found[AUTHORS : AUTHORS + UNSEEN]
    case = Case(
        train=sentences(known, slice(0, 6), 0),
        test=sentences(known, slice(6, 10), 0),
        held_out=sentences(unseen, slice(0, 6), AUTHORS),
        validation=sentences(unseen, slice(6, 10), AUTHORS),
        task=Classification(len(GENRES)),
        fresh=reader,
        recipe=RECIPE,
        name="author_genres",
    )
    return retrieval_case(case, retriever=retriever).replace(name="author_genres")


def four_authors() -> CaseWithRequest:
    """Forget 4 authors: 24 of 240 sentences."""
    return CaseWithRequest(author_genres(), Groups(0, 1, 2, 3))


def a_random_tenth() -> CaseWithRequest:
    """Forget 24 sentences drawn at random: others about the same authors stay."""
    return random_tenth(author_genres())


builtin(
    CaseEntry(
        id="author_genres",
        make=author_genres,
        requests={"authors": four_authors, "random_tenth": a_random_tenth},
        doc="240 sentences about 40 invented authors, which of 4 genres each writes; a reader with"
        " a retrieval store",
    )
)
