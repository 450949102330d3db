"""Exposure of a canary: against enumeration one string at a time, and against known ranks."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

import unlearnkit as uk
from unlearnkit.auditing.splits import choose
from unlearnkit.core.canary import Canary, CandidateRows
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.hidden_targets import no_targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.skew_normal import fitted_log_share

LETTERS = (2, 3, 5, 7)
CANARY = Canary(prefix=(0, 1, 4, 1, 6), secret=(3, 7, 2), alphabet=LETTERS)
WIDTH, TOKENS = 4, 8
TASK = uk.Classification(TOKENS)


class Reader(nn.Module):
    """Reads a window by an LSTM; random weights, or zeros."""

    def __init__(self, seed, scale=3.0):
        super().__init__()
        self.letters = nn.Embedding(TOKENS, 6)
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, TOKENS)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(scale * torch.randn(p.shape, generator=rng))

    def forward(self, x):
        return self.head(self.lstm(self.letters(x))[0][:, -1])


def evidence(model, canary=CANARY, **how):
    views = {Split.CANDIDATES: View.all(canary.candidates(WIDTH, Runtime(), **how))}
    return Evidence({"unlearned": model}, views, TASK, Runtime())


def score(name, e):
    return uk.catalog.metrics()[name](e)


def perplexity(model, canary, string):
    """Return the log-perplexity of a string in bits, read position by position."""
    text, total = list(canary.prefix), 0.0
    with torch.no_grad():
        for token in string:
            out = model(torch.tensor([text[-WIDTH:]]))[0].double()
            total -= float(out.log_softmax(0)[token]) / math.log(2)
            text.append(token)
    return total


def exposure(model, canary):
    own = perplexity(model, canary, canary.secret)
    every = itertools.product(canary.alphabet, repeat=len(canary.secret))
    rank = 1 + sum(perplexity(model, canary, s) < own - 1e-9 for s in every)
    return len(canary.secret) * math.log2(len(canary.alphabet)) - math.log2(rank)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "canary",
    [CANARY, Canary((0, 1, 4, 1), (5,), LETTERS), Canary((1,) * 5, (7, 7, 2, 3), LETTERS)],
    ids=lambda c: f"length {len(c.secret)}",
)
def test_exposure_is_that_of_an_enumeration_one_string_at_a_time(canary, seed):
    model = Reader(seed)
    e = evidence(model, canary)
    assert score("canary_exposure", e).value == pytest.approx(exposure(model, canary), abs=1e-9)
    own = perplexity(model, canary, canary.secret)
    assert score("canary_log_perplexity", e).value == pytest.approx(own, rel=1e-5)


def test_each_context_is_read_once():
    rows = CANARY.candidates(WIDTH, Runtime())
    assert len(rows) == 1 + 4 + 16
    assert rows.contexts.shape == rows.tokens.shape == (64, 3)
    assert rows.tokens[0].tolist() == [3, 7, 2]
    assert len({tuple(t) for t in rows.tokens.tolist()}) == 64


def test_a_model_that_tells_no_string_from_another_exposes_about_a_bit():
    value = score("canary_exposure", evidence(Reader(0, scale=0.0))).value
    assert value == pytest.approx(6 - math.log2(32.5))


def test_a_secret_that_is_likelier_than_all_others_has_the_largest_exposure():
    model = Reader(0, scale=0.0)
    with torch.no_grad():
        model.head.bias[2] = 1.0
    sure = Canary(CANARY.prefix, (2, 2, 2), LETTERS)
    assert score("canary_exposure", evidence(model, sure)).value == 6.0
    assert "rank 1 of 64" in score("canary_exposure", evidence(model, sure)).note


def test_secrets_drawn_at_random_have_an_exposure_of_1_44_bits_on_average():
    strings = list(itertools.product(LETTERS, repeat=4))
    model, found = Reader(1), []
    for secret in strings:
        canary = Canary(CANARY.prefix, secret, LETTERS)
        found.append(score("canary_exposure", evidence(model, canary)).value)
    # The ranks are 1 to 256, each once: the mean of 8 - log2(k).
    want = 8 - sum(math.log2(k) for k in range(1, 257)) / 256
    assert sum(found) / len(found) == pytest.approx(want, abs=1e-6)
    assert want == pytest.approx(1.44, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_an_estimate_from_drawn_strings_is_near_the_exact_exposure(seed):
    canary = Canary(CANARY.prefix, (3, 7, 2, 5, 5, 2, 3), LETTERS)
    model = Reader(seed, scale=0.7)
    exact = score("canary_exposure", evidence(model, canary))
    drawn = score("canary_exposure", evidence(model, canary, most=1000))
    assert "fitted to 10,000 of 2^14.0 strings" in drawn.note
    # The fit is of a shape that sums of seven terms only come near to: half a bit.
    assert drawn.value == pytest.approx(exact.value, abs=0.5)


def test_an_estimate_is_not_above_the_number_of_strings():
    logits = torch.randn(501, 2, generator=torch.Generator().manual_seed(0))
    logits[0, 0] = 1000.0
    rows = CandidateRows(
        logits,
        no_targets(501),
        contexts=torch.arange(501)[:, None],
        tokens=torch.zeros(501, 1, dtype=torch.long),
        possible=20.0,
    )
    views = {Split.CANDIDATES: View.all(rows)}
    e = Evidence({"unlearned": nn.Identity()}, views, uk.Classification(2), Runtime())
    assert score("canary_exposure", e).value == 20.0


def test_the_share_below_a_value_is_that_of_the_law_that_the_sample_came_from():
    law = stats.skewnorm(4.0, loc=10, scale=3)
    sample = law.rvs(5_000, random_state=0)
    for value in (9.0, 10.0, 12.0):
        found = fitted_log_share(sample, value)
        assert found == pytest.approx(law.logcdf(value), rel=0.1)


def test_rows_that_are_no_candidates_have_no_exposure():
    y = torch.zeros(3, dtype=torch.long)
    out = {"unlearned": {Split.CANDIDATES: torch.randn(3, TOKENS)}}
    e = Evidence.from_outputs(out, {Split.CANDIDATES: y}, TASK, Runtime())
    for name in ("canary_exposure", "canary_log_perplexity"):
        assert math.isnan(score(name, e).value)
        assert "candidates" in score(name, e).note


def test_an_audit_of_a_case_with_a_canary_reads_its_candidates():
    text = torch.arange(60) % 8
    rows = text.unfold(0, WIDTH, 1)[:-1].contiguous(), text[WIDTH:]
    case = uk.Case(train=rows, test=rows, task=TASK).replace(canary=CANARY)
    request = uk.Features(phrase=(3, 4), replacement=(4, 3))
    found = choose(case, case.partition(request), Runtime(), request)
    assert len(found.views[Split.CANDIDATES]) == 21
    assert not any("candidates" in w for w in found.warnings)
    plain = choose(case.replace(canary=None), case.partition(request), Runtime(), request)
    assert Split.CANDIDATES not in plain.views
