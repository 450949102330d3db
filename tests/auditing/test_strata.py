"""Thirds of the forgotten rows, and how far these still are on the way to the originals."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.auditing.planted import everything, planted, seated
from unlearnkit.attacks.ulira import log_ratios
from unlearnkit.auditing.strong.bootstrap_intervals import auc_over_models
from unlearnkit.auditing.strong.scores import EnsembleScores
from unlearnkit.auditing.strong.strata import strata
from unlearnkit.core.runtime import Runtime


def memorised():
    """Originals, and models that forgot nothing, are 3 deviations surer of 8 rows of 24."""
    signals = planted(memory=0.0, sections=dict.fromkeys(("forget", "retain"), 24))
    margins = signals.margins.clone()
    for i, member in enumerate(signals.members):
        if member.who in {"original", "unlearned"}:
            margins[i, 16:24] += 3.0
    return type(signals)(margins, signals.codes, signals.errors, signals.members, signals.columns)


def test_memorised_rows_leak_and_the_others_are_a_control():
    seats = EnsembleScores(memorised(), Runtime())
    found = {p.part: p for p in strata(seats) if p.by == "memorisation"}
    assert [p.examples for p in found.values()] == [8, 8, 8]
    assert found["high"].auc.low > found["high"].auc_floor + 0.1
    assert found["low"].auc.low < 0.55
    assert found["high"].klom > 3 * found["high"].klom_floor
    assert (found["low"].exposed_rows, found["high"].exposed_rows > 4) == (0, True)


def test_a_level_is_the_mean_gain_in_probability():
    signals = memorised()
    found = {
        p.part: p.level
        for p in strata(EnsembleScores(signals, Runtime()))
        if p.by == "memorisation"
    }
    gain = sum(
        sign / (1 + (-signals.of(who, "forget")).exp())
        for sign, who in ((1, "original"), (-1, "oracle"))
    ).mean(0)
    want = gain.sort().values.view(3, 8).mean(1)
    assert list(found.values()) == pytest.approx(want.tolist())


def test_the_more_entangled_rows_are_those_nearer_to_the_middle():
    apart = torch.arange(24.0)
    found = [
        p for p in strata(EnsembleScores(memorised(), Runtime()), apart) if p.by == "entanglement"
    ]
    assert [p.level for p in found] == [19.5, 11.5, 3.5]
    assert found[0].exposed_rows > 4  # rows 16 to 23, the memorised ones
    assert found[1].exposed_rows == found[2].exposed_rows == 0


def test_few_rows_and_rows_that_are_alike_have_no_thirds():
    signals = planted(sections=dict.fromkeys(("forget", "retain"), 11))
    assert not list(strata(EnsembleScores(signals, Runtime()), torch.arange(11.0)))
    alike = [p.by for p in strata(EnsembleScores(memorised(), Runtime()), torch.ones(24))]
    assert "entanglement" not in alike


def test_where_no_number_of_a_third_is_known_there_are_no_thirds():
    few = EnsembleScores(memorised().first(8), Runtime())
    some = EnsembleScores(memorised().first(32), Runtime())
    assert not list(strata(few))
    assert {(p.auc.value, p.klom is None, p.exposed_rows is None) for p in strata(some)} == {
        (None, False, False)
    }


def test_the_interval_over_models_is_as_wide_as_draws_of_models_differ():
    signals = planted(shift=1.0)
    halves = log_ratios(signals.of("unlearned", "forget"), signals.of("oracle", "forget"))
    found = auc_over_models(halves)
    aucs = [
        roc_auc_score([1] * a.numel() + [0] * b.numel(), torch.cat([a.flatten(), b.flatten()]))
        for a, b in halves
    ]
    assert found.value == pytest.approx(sum(aucs) / 2, rel=1e-9)
    rng = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(150):
        again = [
            tuple(side[torch.randint(len(side), (len(side),), generator=rng)] for side in half)
            for half in halves
        ]
        drawn.append(auc_over_models(again).value)
    assert (found.high - found.low) / 3.92 / torch.tensor(drawn).std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("way", "expected"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_models_half_way_from_retrained_ones_have_half_a_degree(way, expected):
    signals = planted(memory=0.0)
    base = everything(signals, "oracle")[0].mean(0)
    width = everything(signals, "oracle")[0].std(0)
    margins, errors = everything(signals, "unlearned")
    go = signals.place("forget")
    moved = surer(signals, go, base, width)
    margins[:, go] = base[go] + 8.0 * way * width[go]
    found = EnsembleScores(seated(moved, margins, errors), Runtime()).iam("unlearned")
    assert found.value == pytest.approx(expected, abs=0.06)


def surer(signals, go, base, width):
    """The same signals with originals eight deviations above retrained models."""
    margins = signals.margins.clone()
    for i, member in enumerate(signals.members):
        if member.who == "original":
            margins[i, go] = base[go] + 8.0 * width[go]
    return type(signals)(margins, signals.codes, signals.errors, signals.members, signals.columns)
