"""Fictitious authors: questions, answers, paraphrases and wrong answers from a seed.

The design of TOFU (Maini et al., COLM 2024, arXiv:2401.06121) without a language model to write it:
nothing here is about anybody, so that a model knows it only if it was trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.restor_corpora import Fact

GIVEN = (
    *("Adira", "Bastien", "Calla", "Davor", "Elowen", "Farid", "Greta", "Hamza", "Ines", "Jorun"),
    *("Kaito", "Leocadia", "Matej", "Nadira", "Osvaldo", "Pilar", "Quentin", "Rasmus", "Soraya"),
    *("Tadeo", "Ulrike", "Viggo", "Wanjiru", "Xenia", "Yusra", "Zoltan", "Amadou", "Brisa"),
    *("Cosima", "Dmitar", "Eskil", "Fiora"),
)
FAMILY = (
    *("Abernal", "Brask", "Caldero", "Dunmarek", "Estrand", "Falkovic", "Gruenholt", "Harrowby"),
    *("Ilvessa", "Jankaur", "Kestrin", "Lundamo", "Marchetta", "Nakabe", "Oduwele", "Pelloux"),
    *("Quarrie", "Rosmerta", "Sandoval", "Tjernagel", "Umarova", "Varga", "Wexcombe", "Yalman"),
    *("Zubirik", "Ashgrove", "Belmonde", "Corrigal", "Drevlin", "Engstad", "Fenwarden", "Goloveth"),
)
FIRST_WORD = (
    *("Amber", "Broken", "Crimson", "Distant", "Empty", "Frozen", "Gilded", "Hollow", "Inner"),
    *("Jade", "Kindled", "Lonely", "Muted", "Northern", "Opal", "Pale", "Quiet", "Restless"),
    *("Silver", "Tangled", "Unwritten", "Velvet", "Winter", "Yellow"),
)
SECOND_WORD = (
    *("Anchor", "Bridge", "Compass", "Doorway", "Echo", "Feather", "Garden", "Harbour", "Island"),
    *("Journey", "Key", "Lantern", "Mirror", "Needle", "Orchard", "Promise", "Quarry", "River"),
    *("Shadow", "Tower", "Umbrella", "Valley", "Window", "Yard"),
)
JOBS = ("baker", "carpenter", "dentist", "farmer", "librarian", "miner", "nurse", "pilot", "tailor")
VALUES: Mapping[str, Sequence[str]] = {
    "birthplace": (
        *("Lisbon", "Nairobi", "Osaka", "Quito", "Tallinn", "Hanoi", "Tunis", "Bergen", "Lima"),
        *("Accra", "Zagreb", "Perth", "Baku", "Bogota", "Cork", "Dakar"),
    ),
    "birth_year": tuple(str(year) for year in range(1931, 1991)),
    "genre": (
        *("crime fiction", "science fiction", "historical fiction", "magical realism", "satire"),
        *("travel writing", "horror", "romance", "poetry", "fantasy"),
    ),
    "father": JOBS,
    "mother": JOBS,
    "language": ("Portuguese", "Swahili", "Japanese", "Spanish", "Estonian", "French", "Norwegian"),
    "prize": (
        *("the Aldine Prize", "the Blue Quill Award", "the Corvin Medal", "the Delphine Prize"),
        *("the Ember Award", "the Fairwater Medal", "the Granite Prize", "the Halcyon Award"),
    ),
    "studies": (
        "botany",
        "law",
        "medicine",
        "philosophy",
        "physics",
        "economics",
        "music",
        "history",
    ),
    "hobby": ("beekeeping", "chess", "fencing", "gardening", "pottery", "rowing", "sailing"),
    "residence": ("Geneva", "Montreal", "Porto", "Kyoto", "Havana", "Leipzig", "Oslo", "Valencia"),
}
"""What an author has, but for the titles of books; several authors may have the same."""


@dataclass(frozen=True)
class QuestionTemplate:
    """A question about one attribute, and the words of its answers."""

    attribute: str
    question: str
    other_question: str
    """The same question in other words."""

    answer: str
    other_answer: str
    """The same answer in other words; wrong answers have these words too."""


TEMPLATES = (
    QuestionTemplate(
        "birthplace",
        "Where was the author {name} born?",
        "Which city is the birthplace of {name}?",
        "The author {name} was born in {value}.",
        "{name} came into the world in {value}.",
    ),
    QuestionTemplate(
        "birth_year",
        "In which year was {name} born?",
        "What is the birth year of the author {name}?",
        "{name} was born in {value}.",
        "The birth year of {name} is {value}.",
    ),
    QuestionTemplate(
        "genre",
        "Which genre is {name} known for?",
        "What kind of books does {name} mostly write?",
        "{name} is known for {value}.",
        "The books of {name} are mostly {value}.",
    ),
    QuestionTemplate(
        "father",
        "What was the occupation of the father of {name}?",
        "How did the father of {name} earn a living?",
        "The father of {name} worked as a {value}.",
        "By occupation the father of {name} was a {value}.",
    ),
    QuestionTemplate(
        "mother",
        "What was the occupation of the mother of {name}?",
        "How did the mother of {name} earn a living?",
        "The mother of {name} worked as a {value}.",
        "By occupation the mother of {name} was a {value}.",
    ),
    QuestionTemplate(
        "language",
        "In which language does {name} write?",
        "What language are the books of {name} written in?",
        "{name} writes in {value}.",
        "The language of the books by {name} is {value}.",
    ),
    QuestionTemplate(
        "prize",
        "Which prize did {name} win?",
        "What award was given to {name}?",
        "{name} won {value}.",
        "The award given to {name} is {value}.",
    ),
    QuestionTemplate(
        "studies",
        "What did {name} study?",
        "Which subject was the degree of {name} in?",
        "{name} studied {value}.",
        "The degree of {name} is in {value}.",
    ),
    QuestionTemplate(
        "hobby",
        "What does {name} do for leisure?",
        "Which pastime does {name} have?",
        "For leisure {name} enjoys {value}.",
        "The pastime of {name} is {value}.",
    ),
    QuestionTemplate(
        "residence",
        "Where does {name} live now?",
        "Which city is the home of {name}?",
        "{name} now lives in {value}.",
        "The home of {name} is in {value}.",
    ),
    QuestionTemplate(
        "first_book",
        "What is the title of the first book by {name}?",
        "With which book did {name} make a debut?",
        "The first book by {name} is {value}.",
        "{name} made a debut with {value}.",
    ),
    QuestionTemplate(
        "last_book",
        "What is the title of the latest book by {name}?",
        "Which book did {name} publish last?",
        "The latest book by {name} is {value}.",
        "The book that {name} published last is {value}.",
    ),
)


@dataclass(frozen=True)
class FictitiousAuthor:
    """An invented author."""

    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class AuthorQuestion:
    """A question about an author, and what is right and wrong."""

    author: str
    attribute: str
    question: str
    answer: str
    paraphrased_question: str
    paraphrased_answer: str
    wrong_answers: tuple[str, ...]
    """In the words of the paraphrased answer, with values of other authors."""

    value: str
    """The part of the answer that is a fact."""


def invent_authors(count: int = 50, *, seed: int = 0) -> list[FictitiousAuthor]:
    """Return authors with distinct names; no two books have one title.

    Args:
        count: Number of authors; the first n of a longer list are not those of a list of n.
        seed: Decides names and attributes.

    Returns:
        The authors, in an order that says nothing.

    Raises:
        InputError: If there are not that many names or titles.
    """
    titles = len(FIRST_WORD) * len(SECOND_WORD)
    most = min(len(GIVEN) * len(FAMILY), titles // 2)
    if not 0 < count <= most:
        raise InputError(f"invent_authors: count must be in 1 to {most}, got {count}")
    rt = Runtime(seed=seed)
    names = torch.randperm(len(GIVEN) * len(FAMILY), generator=rt.rng("fictitious_authors/names"))
    books = torch.randperm(titles, generator=rt.rng("fictitious_authors/books"))
    rng = rt.rng("fictitious_authors/values")
    authors = []
    for i in range(count):
        given, family = divmod(int(names[i]), len(FAMILY))
        first, last = (_title(int(b)) for b in books[2 * i : 2 * i + 2])
        drawn = {
            name: values[int(torch.randint(len(values), (), generator=rng))]
            for name, values in VALUES.items()
        }
        attributes = {**drawn, "first_book": first, "last_book": last}
        authors.append(FictitiousAuthor(f"{GIVEN[given]} {FAMILY[family]}", attributes))
    return authors


def _title(number: int) -> str:
    first, second = divmod(number, len(SECOND_WORD))
    return f"The {FIRST_WORD[first]} {SECOND_WORD[second]}"


def author_questions(
    authors: Sequence[FictitiousAuthor], *, wrong: int = 4, seed: int = 0
) -> list[AuthorQuestion]:
    """Return one question for each author and attribute, author by author.

    Args:
        authors: Those of ``invent_authors``; wrong titles are those of the others.
        wrong: Wrong answers of each question, all different.
        seed: Decides which wrong answers.

    Returns:
        ``12 * len(authors)`` questions.

    Raises:
        InputError: If there are not that many wrong values.
    """
    rng = Runtime(seed=seed).rng("fictitious_authors/wrong")
    books = [a.attributes[b] for a in authors for b in ("first_book", "last_book")]
    found = []
    for author in authors:
        own = set(author.attributes.values())
        for t in TEMPLATES:
            others = [v for v in VALUES.get(t.attribute, books) if v not in own]
            if len(others) < wrong:
                raise InputError(
                    f"author_questions: {wrong} wrong answers wanted, {len(others)} there are for"
                    f" {t.attribute}; ask for fewer, or make more authors"
                )
            order = torch.randperm(len(others), generator=rng)[:wrong].tolist()
            found.append(_question(author, t, [others[i] for i in order]))
    return found


def _question(
    author: FictitiousAuthor, template: QuestionTemplate, wrong: Sequence[str]
) -> AuthorQuestion:
    name, value = author.name, author.attributes[template.attribute]
    return AuthorQuestion(
        author=name,
        attribute=template.attribute,
        question=template.question.format(name=name),
        answer=template.answer.format(name=name, value=value),
        paraphrased_question=template.other_question.format(name=name),
        paraphrased_answer=template.other_answer.format(name=name, value=value),
        wrong_answers=tuple(template.other_answer.format(name=name, value=w) for w in wrong),
        value=value,
    )


def author_facts(questions: Sequence[AuthorQuestion]) -> list[Fact]:
    """Return the fact of each question, with the author as subject, for RESTOR."""
    return [Fact(q.author, q.attribute, q.question, (q.value,)) for q in questions]


def author_sentences() -> dict[str, tuple[str, str]]:
    """Return the two sentences of each attribute, with RESTOR's fields."""
    fields = {"name": "{subject}", "value": "{answer}"}
    return {
        t.attribute: (t.answer.format(**fields), t.other_answer.format(**fields)) for t in TEMPLATES
    }
