"""Sentence pairs and how alike they mean, 0 to 5: SemEval 2014, from a folder or from the net.

Agirre et al., SemEval 2014, task 10; one of the sources of STS-B. The folder is ``sts`` in the one
that ``UNLEARNKIT_DATA`` names, with ``2015.train.tsv`` and ``2015.val.tsv``: score, sentence,
sentence, separated by tabs, as in the collection of https://github.com/brmson/dataset-sts.
"""

import re
import zlib
from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.cases.data_folder import lines
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin, held_out
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(optimizer="adam", lr=2e-3, schedule="cosine", epochs=12, batch_size=64)
URL = (
    "https://raw.githubusercontent.com/brmson/dataset-sts/ad514adb512d467ba8b3f3dde28a16bfa3dd023a"
    "/data/sts/semeval-sts/all/"
)
FILES = {"2015.train.tsv": 3000, "2015.val.tsv": 750}
"""The pairs that each file must have."""

GENRES = {"dictionary": 750, "forum": 450, "news": 300, "headlines": 750, "captions": 750}
"""The first file's genres with their pairs, in order; the second is tweets with their headlines."""

CAPTIONS = list(GENRES).index("captions")
BUCKETS, LONGEST = 4096, 20


class PairEncoder(nn.Module):
    """Two sentences read by one recurrent encoder, each word compared with those it looks at.

    The comparison is that of decomposable attention (Parikh et al., EMNLP 2016, arXiv:1606.01933).
    """

    def __init__(self, width: int = 48) -> None:
        """Build it untrained; ``width``, an even number, is that of a word."""
        super().__init__()
        self.words = nn.Embedding(BUCKETS, width, padding_idx=0)
        self.reader = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.compare = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU())
        self.score = nn.Sequential(nn.Linear(2 * width, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Score pairs of numbered words; the order of the two sentences plays no part.

        Args:
            x: Numbers ``(B, 2, T)``; 0 is no word.

        Returns:
            Scores ``(B, 1)``.
        """
        words = self.words(x.flatten(0, 1))
        read = words + self.reader(words)[0]
        (a, b), (here, there) = read.unflatten(0, (-1, 2)).unbind(1), (x > 0).unbind(1)
        like = a @ b.mT / a.shape[-1] ** 0.5
        u, v = self._met(a, b, like, here, there), self._met(b, a, like.mT, there, here)
        scores: Tensor = self.score(torch.cat([u + v, (u - v).abs()], 1))
        return scores

    def _met(self, a: Tensor, b: Tensor, like: Tensor, here: Tensor, there: Tensor) -> Tensor:
        """Return how words of ``a (B, T, W)`` compare with those of ``b``: the mean (B, W)."""
        seen = like.masked_fill(~there[:, None], -1e9).softmax(-1) @ b
        pairs = torch.cat([a, seen, (a - seen).abs(), a * seen], -1)
        told: Tensor = (self.compare(pairs) * here[..., None]).sum(1)
        return told / here.sum(1, keepdim=True).clamp(min=1)


def word_numbers(sentence: str) -> list[int]:
    """Return the words of a sentence as numbers 1 to 4,095, cut or filled with 0 to 20.

    A word's number is a hash of it: no vocabulary is fitted, so none remembers a forgotten row.
    """
    words = re.findall(r"[a-z0-9']+", sentence.lower())[:LONGEST]
    found = [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words]
    return found + [0] * (LONGEST - len(found))


@cache
def _sets() -> tuple[TensorData, ...]:
    pairs = [_pair(line, file, i) for file in FILES for i, line in enumerate(_told(file))]
    genre = torch.arange(len(GENRES) + 1).repeat_interleave(
        torch.tensor([*GENRES.values(), FILES["2015.val.tsv"]])
    )
    x = torch.tensor([[word_numbers(a), word_numbers(b)] for _, a, b in pairs])
    y = torch.tensor([[score] for score, _, _ in pairs])
    rows = held_out(len(y), 750, "sts/held out")
    return tuple(TensorData(x[r], y[r], genre[r]) for r in rows)


def _told(file: str) -> list[str]:
    told = lines("sts", file, URL + file)
    if len(told) != FILES[file]:
        raise InputError(
            f"sts: {file} has {len(told)} pairs, {FILES[file]} are needed; fetch it again"
            f" ({URL + file})"
        )
    return told


def _pair(line: str, file: str, i: int) -> tuple[float, str, str]:
    parts = line.split("\t")
    try:
        score, a, b = parts
        value = float(score)
    except ValueError:
        raise InputError(
            f"sts: {file} line {i + 1} is no pair: expected score, sentence, sentence, separated by"
            f" tabs, got {line[:40]!r}; fetch it again ({URL + file})"
        ) from None
    if not 0 <= value <= 5:
        raise InputError(f"sts: {file} line {i + 1} has a score of {score}; scores are 0 to 5")
    return value, a, b


@cache
def sts() -> Case:
    """Return the case: 3,000 training, 500 test, 250 validation pairs, drawn from all six genres.

    Words are hashed to numbers, at most 20 a sentence. The loss is the squared error. Test pairs
    have an absolute error of 0.87, training pairs of 0.54; always answering the median has one of
    1.25. A row's group is its genre: 0 dictionary, 1 forum,
    2 news, 3 headlines, 4 captions, 5 tweets.
    """
    train, test, validation = _sets()
    return Case(
        train=train,
        test=test,
        validation=validation,
        task=Regression.infer(train),
        fresh=PairEncoder,
        recipe=RECIPE,
        name="sts",
    )


def unlike() -> CaseWithRequest:
    """Forget pairs with a score below 2, the published request: 875 of 3,000."""
    return CaseWithRequest(sts(), Targets(below=2))


def captions() -> CaseWithRequest:
    """Forget captions of images: 594 of 3,000 pairs."""
    return CaseWithRequest(sts(), Groups(CAPTIONS))


def a_random_tenth() -> CaseWithRequest:
    """Forget 300 training pairs drawn at random."""
    return random_tenth(sts())


builtin(
    CaseEntry(
        bundled=False,
        id="sts",
        make=sts,
        requests={"range": unlike, "group": captions, "random_tenth": a_random_tenth},
        doc="3,750 sentence pairs, how alike they mean from 0 to 5, regression (folder in"
        " UNLEARNKIT_DATA, or the net); a recurrent encoder",
    )
)
