"""Requests for rows that models point out: they run, say what they cost, and train once."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.cases import hard_forget_sets as hard
from unlearnkit.cases.networks import small_conv
from unlearnkit.cases.registry import CaseEntry
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.difficulty.memorization import leave_out
from unlearnkit.job import Job
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

ROWS = 40


def pictures():
    """Return the CIFAR-10 case in small: its network and recipe on made images of 8 by 8."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(2 * ROWS) % 4
    x = torch.randn(len(y), 3, 8, 8, generator=rng) + y[:, None, None, None] / 2
    return uk.Case(
        train=(x[:ROWS], y[:ROWS]),
        test=(x[ROWS:], y[ROWS:]),
        task=Classification(4),
        fresh=lambda: small_conv(4),
        recipe=uk.Recipe(lr=0.1, momentum=0.9, schedule="cosine", epochs=2, batch_size=64),
        name="pictures",
    )


CASE = CaseEntry("pictures", pictures, hard.requests(pictures), "made pictures")


class Heard:
    def __init__(self):
        self.notes, self.bars = [], set()

    def progress(self, what, done, total):
        self.bars.add(what)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(autouse=True)
def _few_models(monkeypatch):
    monkeypatch.setattr(hard, "LEAVE_OUT_MODELS", 24)


def ask(name, heard):
    return CASE.ask(name, lambda: uk.Runtime.on("cpu", seed=7, reporter=heard))


@pytest.mark.parametrize("name", CASE.requests)
def test_every_request_finds_a_tenth_and_the_same_again(name):
    found = ask(name, Heard())
    assert len(found.request.rows) == ROWS // 10
    assert CASE.ask(name).request == found.request
    assert CASE.requests[name].__doc__.endswith(
        ("trains one model first.", "trains 64 models first.")
    )


@pytest.mark.parametrize(
    ("name", "told", "bar"),
    [
        ("memorised_tenth", "an original is trained and watched first, once: 40 rows for 2 epochs",
         "original 0"),
        ("memorized_tenth_leave_out",
         "24 models are trained first, once, each on 28 of 40 rows for 2 epochs:"
         " as much as 16.8 originals", "models on subsets"),
    ],
)  # fmt: skip
def test_the_cost_is_said_once_before_anything_is_trained(name, told, bar, monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path))
    first, again = Heard(), Heard()
    ask(name, first)
    assert len(first.notes) == 1
    assert told in first.notes[0]
    assert any(bar in b for b in first.bars)
    ask(name, again)
    assert again.notes == []


def test_left_out_rows_are_those_that_the_estimate_ranks_highest():
    estimate = leave_out(pictures(), models=24).memorised
    order = estimate.argsort(descending=True, stable=True)[:4]
    assert list(CASE.ask("memorized_tenth_leave_out").request.rows) == sorted(order.tolist())


def test_a_device_is_looked_for_only_where_something_is_trained(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Job(case="digits", forget="class", device="cuda").resolve()
    with pytest.raises(InputError, match="'cuda' is not available here"):
        Job(case="digits", forget="memorised_tenth", device="cuda").resolve()


def embedded():
    """Return a case of words, whose loss has no slope by its inputs."""
    x, y = torch.arange(240).reshape(60, 4) % 11, torch.arange(60) % 3
    return uk.Case(
        train=(x, y),
        task=Classification(3),
        fresh=lambda: torch.nn.Sequential(
            torch.nn.Embedding(11, 4), torch.nn.Flatten(), torch.nn.Linear(16, 3)
        ),
        recipe=uk.Recipe(epochs=1),
    )


@pytest.mark.parametrize(
    ("by", "case", "told"),
    [
        ("curvature", embedded, "inputs of one real tensor only; rank rows by another score"),
        ("hold_out", embedded, "hold_out needs test rows"),
        ("influence", lambda: toy_case(Regression()), "memorisation is measured by classes"),
        ("leave_out", lambda: toy_case(Regression()), "memorisation is measured by classes"),
        ("confidence", lambda: embedded().replace(fresh=None), "a model factory and a recipe"),
    ],
)
def test_what_a_score_cannot_be_read_from_is_told_in_a_line(by, case, told):
    with pytest.raises(UnsupportedError, match=told) as error:
        hard.memorised(case(), by=by)
    assert "\n" not in str(error.value)
