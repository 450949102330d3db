"""Sentence pairs are numbered by a hash, split over genres, and scored whatever their order."""

import os
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import sts as home
from unlearnkit.core.errors import InputError

WORDS = ("a cat sits", "the dog runs fast", "rain falls", "nobody knows why")


def line(i):
    return f"{i % 26 / 5}\t{WORDS[i % 4]} {i}\t{WORDS[i % 3]}, again!"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    home._sets.cache_clear()
    home.sts.cache_clear()
    yield
    home._sets.cache_clear()
    home.sts.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "sts").mkdir()
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    start = 0
    for file, count in home.FILES.items():
        rows = [line(i) for i in range(start, start + count)]
        (tmp_path / "sts" / file).write_text("\n".join(rows) + "\n", "utf-8")
        start += count
    return tmp_path / "sts"


def test_words_are_hashed_and_padded():
    found = home.word_numbers("The cat's 2 mats -- THE!")
    want = [1 + zlib.crc32(w) % 4095 for w in (b"the", b"cat's", b"2", b"mats", b"the")]
    assert found == want + [0] * 15


def test_long_sentences_are_cut():
    assert home.word_numbers("x " * 50) == home.word_numbers("x " * 20)


def test_rows_are_split_and_keep_score_words_and_genre(folder):
    case = home.sts()
    assert [len(d) for d in (case.train, case.test, case.validation)] == [3000, 500, 250]
    genres = [0] * 750 + [1] * 450 + [2] * 300 + [3] * 750 + [4] * 750 + [5] * 750
    wanted = Counter()
    for i, genre in enumerate(genres):
        score, a, b = line(i).split("\t")
        wanted[
            tuple(home.word_numbers(a) + home.word_numbers(b)), round(float(score), 4), genre
        ] += 1
    found = Counter(
        (tuple(x[0] + x[1]), round(y[0], 4), group)
        for data in (case.train, case.test, case.validation)
        for x, y, group in zip(data.x.tolist(), data.y.tolist(), data.group.tolist(), strict=True)
    )
    assert found == wanted


def test_every_request_names_its_rows(folder):
    asked = {name: uk.catalog.cases()["sts"].ask(name) for name in ("range", "group")}
    parts = {name: a.case.partition(a.request) for name, a in asked.items()}
    assert float(parts["range"].forget.y.max()) < 2 <= float(parts["range"].retain.y.min())
    rows = parts["group"].forget.rows
    assert asked["group"].case.train.group[rows].unique().tolist() == [4]


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("4\tonly one sentence", "line 3 is no pair"),
        ("much\ta\tb", "line 3 is no pair"),
        ("5.5\ta\tb", r"line 3 has a score of 5\.5; scores are 0 to 5"),
        ("nan\ta\tb", "line 3 has a score of nan"),
    ],
    ids=["two parts", "no number", "too high", "no score"],
)
def test_a_line_that_is_no_pair_is_named(folder, bad, what):
    file = folder / "2015.train.tsv"
    rows = file.read_text("utf-8").split("\n")
    file.write_text("\n".join([*rows[:2], bad, *rows[3:]]), "utf-8")
    with pytest.raises(InputError, match=what):
        home.sts()


def test_a_file_with_too_few_pairs_is_refused(folder):
    (folder / "2015.val.tsv").write_text(line(0), "utf-8")
    with pytest.raises(InputError, match=r"2015\.val\.tsv has 1 pairs, 750 are needed"):
        home.sts()


def pairs():
    told = [("a cat sits", "the dog runs"), ("rain", "snow falls on the hill"), ("", "nothing")]
    return torch.tensor([[home.word_numbers(a), home.word_numbers(b)] for a, b in told])


def test_the_order_of_two_sentences_plays_no_part():
    net, x = home.PairEncoder(8).double().eval(), pairs()
    torch.testing.assert_close(net(x), net(x.flip(1)), rtol=1e-12, atol=1e-12)


def test_a_pair_is_scored_as_if_it_were_alone():
    net, x = home.PairEncoder(8).double().eval(), pairs()
    alone = torch.cat([net(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x), alone, rtol=1e-12, atol=1e-12)
    assert net(x).shape == (3, 1)


def test_comparing_words_looks_at_told_words_only():
    net = home.PairEncoder(4).double()
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 3, 4, generator=g, dtype=torch.float64)
    here, there = torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]])
    got = net._met(a, b, a @ b.mT, here, there)
    told = [torch.cat([w, b[0, 0], (w - b[0, 0]).abs(), w * b[0, 0]]) for w in a[0, :2]]
    want = (net.compare(told[0]) + net.compare(told[1])) / 2
    torch.testing.assert_close(got[0], want, rtol=1e-12, atol=1e-12)


REAL = os.environ.get("UNLEARNKIT_DATA")


@pytest.mark.data
@pytest.mark.skipif(not REAL or not (Path(REAL) / "sts").is_dir(), reason="no sts here")
def test_the_real_case_can_be_asked():
    built = uk.catalog.cases()["sts"]
    for name, count in {"range": 875, "group": 594, "random_tenth": 300}.items():
        asked = built.ask(name)
        assert len(asked.case.partition(asked.request).forget) == count
