"""RMIA against a loop over pairs, and against what is known for one reference."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.attacks.lira import lira
from unlearnkit.attacks.rmia import rmia
from unlearnkit.core.errors import InputError
from unlearnkit.stats.roc import auc


def draw(models, examples, seed, level=0.0, spread=2.0):
    """Return margins around one difficulty an example, the same for the same number of them."""
    own = torch.Generator().manual_seed(examples)
    centre = level + spread * torch.randn(examples, generator=own, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    return centre + 0.7 * torch.randn(models, examples, generator=rng, dtype=torch.float64)


def world(targets, references, shift=0.8, level=0.0):
    members = torch.arange(2000) < 1000
    target = draw(targets, 2000, 1, level) + shift * members
    population = draw(targets, 1000, 2, level), draw(references, 1000, 4, level)
    return (target, draw(references, 2000, 3, level), *population), members


def mean_auc(scores, members):
    each = [
        auc(s[m & ~s.isnan()], s[~m & ~s.isnan()])
        for s, m in zip(scores, members.expand_as(scores), strict=True)
    ]
    return sum(each) / len(each)


def raw(target, members):
    return sum(auc(t[members], t[~members]) for t in target) / len(target)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("a", "gamma"), [(0.0, 1.0), (0.5, 2.0), (1.0, 0.5)])
def test_scores_equal_a_loop_over_pairs(a, gamma, inside):
    target, references = draw(2, 9, 1), draw(3, 9, 2)
    unseen, strange = draw(2, 13, 3), draw(3, 13, 4)
    mask = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[:, 0], mask[0, 1:] = False, False
    mask = mask if inside else None
    got = rmia(target, references, unseen, strange, inside=mask, a=a, gamma=gamma)
    p = {
        k: 1 / (1 + np.exp(-v.numpy()))
        for k, v in {"t": target, "r": references, "tz": unseen, "rz": strange}.items()
    }
    for t in range(2):
        for e in range(9):
            ins = np.zeros(3, bool) if mask is None else mask[:, e].numpy()
            out = p["r"][~ins, e].mean()
            usual = ((1 + a) * out + 1 - a) / 2
            if ins.any():
                usual = (out + p["r"][ins, e].mean()) / 2
            ratios = np.array(
                [
                    p["t"][t, e]
                    / usual
                    / (p["tz"][t, z] / (((1 + a) * p["rz"][:, z].mean() + 1 - a) / 2))
                    for z in range(13)
                ]
            )
            assert float(got.scores[t, e]) == pytest.approx((ratios >= gamma).mean())
            assert float(got.log_ratios[t, e]) == pytest.approx(np.log(ratios).mean())


def test_one_reference_beats_the_margin_and_more_beat_one():
    aucs = {}
    for k in (1, 4, 64):
        parts, members = world(20, k)
        aucs[k] = mean_auc(rmia(*parts).log_ratios, members)
    assert aucs[1] > raw(parts[0], members) + 0.04
    assert aucs[1] < aucs[4] < aucs[64] + 0.01
    assert abs(aucs[4] - aucs[64]) < 0.04


@pytest.mark.parametrize("k", [1, 16])
def test_unsure_models_with_a_of_1_give_the_auc_of_differences(k):
    parts, members = world(20, k, shift=0.8, level=-40.0)
    best = stats.norm.cdf(0.8 / 0.7 / math.sqrt(2 * (1 + 1 / k)))
    assert mean_auc(rmia(*parts, a=1.0).log_ratios, members) == pytest.approx(best, abs=0.02)


def test_a_second_oracle_is_not_told_apart():
    parts, members = world(40, 4, shift=0.0)
    error = math.sqrt(2001 / (12 * 1000**2) / 40)
    assert abs(mean_auc(rmia(*parts).log_ratios, members) - 0.5) < 5 * error


def test_retained_rows_that_unlearning_exposed_stand_out_from_what_retraining_gives():
    retained = torch.arange(2000) < 1000
    trained = 1.5 * retained
    oracles = draw(12, 2000, 3) + trained
    exposed = draw(20, 2000, 1) + trained + 0.8 * retained
    strangers = draw(20, 1000, 2), draw(12, 1000, 4)
    got = mean_auc(rmia(exposed, oracles, *strangers).log_ratios, retained)
    second = mean_auc(rmia(draw(20, 2000, 5) + trained, oracles, *strangers).log_ratios, retained)
    # A second oracle is not at one half here: the references know retained rows as it does.
    assert got > second + 0.05
    tails = [lira(t, oracles).scores for t in (exposed, draw(20, 2000, 5) + trained)]
    assert mean_auc(tails[0], retained) > 0.65
    assert abs(mean_auc(tails[1], retained) - 0.5) < 0.03


def test_scores_come_in_steps_of_one_population_point_and_ties_are_broken():
    parts, _ = world(1, 2)
    parts = (*parts[:2], parts[2][:, :10], parts[3][:, :10])
    got = rmia(*parts)
    steps = got.scores * 10
    assert torch.equal(steps, steps.round())
    both = sorted(range(2000), key=lambda e: (float(got.scores[0, e]), float(got.log_ratios[0, e])))
    assert both == got.log_ratios[0].argsort().tolist()


def test_a_population_point_that_is_equalled_is_beaten():
    target, references = draw(1, 50, 1), draw(3, 50, 2)
    got = rmia(target, references, target, references)
    assert sorted(got.scores[0].tolist()) == pytest.approx([k / 50 for k in range(1, 51)])


def test_margins_so_large_that_probabilities_round_still_count():
    parts, members = world(3, 4, shift=0.8, level=-900.0)
    assert mean_auc(rmia(*parts, a=1.0).log_ratios, members) > 0.7
    sure, _ = world(1, 2, level=900.0)
    assert bool(rmia(*sure).log_ratios.isfinite().all())


def test_an_example_that_all_references_saw_has_no_score():
    parts, _ = world(1, 3)
    inside = torch.zeros(3, 2000, dtype=torch.bool)
    inside[:, 7] = True
    got = rmia(*parts, inside=inside)
    assert got.scores.isnan().nonzero().tolist() == [[0, 7]]
    assert "1 examples have no reference" in got.note


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x: rmia(x, x, x, x[:1]), "references must be the same models"),
        (lambda x: rmia(x[:1], x, x, x), "targets must be the same models"),
        (lambda x: rmia(x, x[:0], x, x[:0]), "a reference model and a population point"),
        (lambda x: rmia(x, x, x[:, :0], x[:, :0]), "a reference model and a population point"),
        (lambda x: rmia(x, x, x, x, a=1.1), "a must be in"),
        (lambda x: rmia(x, x, x, x, gamma=0.0), "gamma above 0"),
        (lambda x: rmia(x, x, x / 0, x), "rmia population: target margins must be finite"),
    ],
)
def test_bad_input_is_refused(ask, told):
    with pytest.raises(InputError, match=told):
        ask(draw(2, 5, 1))


def test_points_that_are_met_exactly_count_by_name():
    zero = torch.zeros(1, 3, dtype=torch.float64)
    loose = rmia(zero, zero, zero, zero)
    strict = rmia(zero, zero, zero, zero, ties="unbeaten")
    assert loose.scores.tolist() == [[1.0] * 3]
    assert strict.scores.tolist() == [[0.0] * 3]
