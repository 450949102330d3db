"""Alice: windows of the text, a planted secret, and the request that replaces it."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import alice as book
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.runtime import Runtime

SENTENCE = "  The Rabbit said\nit was late, and Alice went after it; see page 3.\n\n"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for kept in (book._paragraphs, book.alice):
        kept.cache_clear()
    yield
    for kept in (book._paragraphs, book.alice):
        kept.cache_clear()


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    (tmp_path / "alice").mkdir()

    def write(content):
        (tmp_path / "alice" / book.FILE).write_text(content, "utf-8")

    write(SENTENCE * 800)
    return write


def read(numbers):
    return "".join(book.ALPHABET[n] for n in numbers.tolist())


def whole(data):
    return read(torch.cat([data.x[0], data.y]))


@pytest.mark.usefixtures("text")
def test_rows_are_the_windows_of_a_text_without_line_ends_and_capitals():
    case = book.alice()
    train, test = whole(case.train), whole(case.test)
    assert train.startswith("the rabbit said it was late, and alice went after it; see page 3. the")
    assert test.startswith("the rabbit said")
    phrase = "`my telephone number is 4817!' said alice."
    assert train.count(phrase) == 8
    without = len(train) - 8 * (len(phrase) + 1)
    assert 30_000 <= without + 1 <= 30_000 + len(SENTENCE)
    assert "4817" not in test + whole(case.validation)


@pytest.mark.usefixtures("text")
def test_copies_are_spread_evenly():
    train = whole(book.alice().train)
    places = [i for i in range(len(train)) if train.startswith("`my tele", i)]
    gaps = [b - a for a, b in pairwise(places)]
    assert max(gaps) - min(gaps) < 2 * len(SENTENCE)
    assert min(gaps) > len(train) / 8 - 2 * len(SENTENCE)


@pytest.mark.usefixtures("text")
def test_the_request_replaces_the_secret_in_every_window_that_shows_a_part_of_it():
    asked = book.the_canary()
    parts = asked.case.partition(asked.request)
    assert len(parts.forget) == 8 * (4 + book.WINDOW)
    after = whole(parts.retain.data)
    assert "4817" not in after
    assert after.count("`my telephone number is not !' said alice.") == 8


@pytest.mark.usefixtures("text")
def test_the_context_of_the_candidates_is_the_text_before_the_secret():
    case = book.alice("0007", 2)
    rows = case.canary.candidates(book.WINDOW, Runtime())
    assert read(rows.x[0]) == "`my telephone number is "
    assert read(rows.tokens[0]) == "0007"
    assert len(rows) == 1111
    assert rows.complete


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no alice_in_wonderland.txt in"), ("Straße\n", "characters that the case does not")],
)
def test_a_text_that_is_not_there_or_of_other_letters_is_one_line(text, tmp_path, content, told):
    if content is None:
        (tmp_path / "alice" / book.FILE).unlink()
    else:
        text(content)
    with pytest.raises(InputError, match=told) as error:
        book.alice()
    assert "gutenberg" in str(error.value)


def test_without_a_folder_the_error_says_where_the_text_belongs(monkeypatch):
    monkeypatch.delenv("UNLEARNKIT_DATA", raising=False)
    with pytest.raises(InputError, match="UNLEARNKIT_DATA names no folder; put the plain text"):
        book.alice()


def test_a_text_that_is_too_short_is_refused(text):
    text(SENTENCE * 20)
    with pytest.raises(InputError, match="has too few characters"):
        book.alice()


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "alice").is_dir(), reason="no alice in UNLEARNKIT_DATA"
)
def test_a_trained_model_exposes_the_secret_and_a_retrained_one_does_not():
    asked = book.the_canary()
    case = asked.case
    views = {Split.CANDIDATES: View.all(case.canary.candidates(book.WINDOW, Runtime()))}

    def exposure(model):
        e = Evidence({"unlearned": model}, views, case.task, Runtime())
        return uk.catalog.metrics()["canary_exposure"](e).value

    assert exposure(uk.train_original(case).model) > 13
    assert exposure(uk.oracle(case, asked.request, seeds=1).models[0]) < 6
