"""Per-example attackers of unlearned models, on planted laws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.attacks.ulira import _fisher, ulira
from unlearnkit.core.errors import InputError
from unlearnkit.stats.densities import fit_law, log_ratio
from unlearnkit.stats.roc import auc


def draw(n, examples, seed, shift=0.0, spread=True):
    """Return margins of n models around centres that differ by far more than models do."""
    own = torch.Generator().manual_seed(99)
    centre = 10 * torch.randn(examples, generator=own, dtype=torch.float64)
    scale = 0.5 + torch.rand(examples, generator=own, dtype=torch.float64) if spread else 1.0
    z = torch.randn(n, examples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return centre + scale * (z + shift)


def normal(x):
    return float(stats.norm.cdf(x))


@pytest.mark.parametrize("d", [0.5, 1.0, 2.0])
def test_a_shift_of_d_deviations_gives_the_best_auc_there_is(d):
    got = ulira(draw(128, 400, 1, shift=d), draw(128, 400, 2))
    best = normal(d / math.sqrt(2))
    assert best - 0.03 < got.auc < best + 0.005
    assert normal(d / 2) - 0.03 < got.accuracy < normal(d / 2) + 0.005
    assert abs(got.quantile(0.5, "aucs") - best) < 0.03
    assert float(got.shifts.mean()) == pytest.approx(d, abs=0.05 + 0.1 * d)


@pytest.mark.parametrize("seed", range(5))
def test_a_second_set_of_oracles_is_not_told_apart(seed):
    got = ulira(draw(128, 90, 10 + seed), draw(128, 90, 20 + seed))
    assert abs(got.auc - 0.5) < 0.02
    assert int(got.exposed_rows.sum()) == 0


def test_the_tests_of_examples_hold_their_level_on_second_oracles():
    p = torch.cat([ulira(draw(64, 200, 40 + s), draw(64, 200, 50 + s)).p for s in range(10)])
    for level in (0.01, 0.05, 0.2):
        high = stats.binom(len(p), level).ppf(0.999) / len(p)
        assert float((p <= level).double().mean()) <= high


def test_the_exposed_are_those_that_were_planted():
    unlearned = draw(128, 200, 1)
    unlearned[:, ::20] += 6
    got = ulira(unlearned, draw(128, 200, 2))
    assert got.exposed_rows.nonzero()[:, 0].tolist() == list(range(0, 200, 20))
    assert got.exposed_share == 0.05
    assert sorted(got.worst(0.05).tolist()) == list(range(0, 200, 20))
    assert bool((got.shifts[::20] > 2).all())
    assert got.quantile(0.5) < 0.6 < 0.99 < got.quantile(0.97)


def test_forgetting_too_much_is_found_with_the_other_sign():
    got = ulira(draw(128, 50, 1, shift=-3.0), draw(128, 50, 2))
    assert got.auc > 0.95
    assert bool((got.shifts < -2).all())


def test_every_number_equals_a_loop_over_examples():
    unlearned, null = draw(70, 40, 1, shift=1.0), draw(66, 40, 2)
    got = ulira(unlearned, null)
    pooled, tprs, per_example, right, p = [], [], [], [], []
    for fit, judge in ((0, 1), (1, 0)):
        a, b = fit_law(unlearned[fit::2]), fit_law(null[fit::2])
        ins, outs = log_ratio(a, b, unlearned[judge::2]), log_ratio(a, b, null[judge::2])
        pooled.append(auc(ins.flatten(), outs.flatten()))
        per_example.append([auc(ins[:, e], outs[:, e]) for e in range(40)])
        calls = [((ins[:, e] > 0).sum().item(), (outs[:, e] > 0).sum().item()) for e in range(40)]
        right.append([(1 + i / len(ins) - o / len(outs)) / 2 for i, o in calls])
        tables = [[[i, len(ins) - i], [o, len(outs) - o]] for i, o in calls]
        p.append([stats.fisher_exact(t, alternative="greater").pvalue for t in tables])
        edge = outs.flatten().sort(descending=True).values[len(outs.flatten()) // 100]
        tprs.append(float((ins > edge).double().mean()))
    assert got.auc == pytest.approx(np.mean(pooled), abs=5e-5)
    np.testing.assert_allclose(got.aucs, np.mean(per_example, 0), rtol=1e-12)
    np.testing.assert_allclose(got.accuracies, np.mean(right, 0), rtol=1e-12)
    np.testing.assert_allclose(got.p, np.minimum(1, 2 * np.min(p, 0)), rtol=1e-7)
    assert math.isnan(got.tpr_at_0_1_percent)
    assert got.tpr_at_1_percent == pytest.approx(np.mean(tprs), abs=0.005)


def test_the_order_of_examples_does_not_matter():
    unlearned, null, order = draw(64, 20, 1, 1.0), draw(64, 20, 2), torch.randperm(20)
    one, other = ulira(unlearned, null), ulira(unlearned[:, order], null[:, order])
    torch.testing.assert_close(one.aucs[order], other.aucs, rtol=0, atol=1e-12)
    assert one.auc == pytest.approx(other.auc, abs=1e-9)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    unlearned, null = draw(64, 25, 1, 1.0), draw(64, 25, 2)
    whole = ulira(unlearned, null)
    monkeypatch.setattr("unlearnkit.stats.matrix_checks.CELLS", 2000)
    pieces = ulira(unlearned, null)
    assert whole.auc == pytest.approx(pieces.auc, abs=1e-12)
    torch.testing.assert_close(whole.aucs, pieces.aucs, rtol=0, atol=1e-12)


def roles(shadows, examples, shift, seed=0):
    """Return shadows that give each example a role: kept, never seen, forgotten."""
    role = torch.randint(0, 3, (shadows, examples), generator=torch.Generator().manual_seed(seed))
    phi = draw(shadows, examples, seed + 1)
    phi += torch.where(role == 0, 3.0, 0.0) + torch.where(role == 2, shift, 0.0)
    return phi, role


def apart_by_role(phi, role):
    return ulira(phi, phi, unlearned_used=role == 2, null_used=role == 1)


def test_random_roles_give_what_two_ensembles_give():
    phi, role = roles(400, 100, shift=1.5)
    got = apart_by_role(phi, role)
    again = ulira(phi, draw(130, 100, 7), unlearned_used=role == 2)
    plain = ulira(draw(130, 100, 5, shift=0.0) + 1.5, draw(130, 100, 7))
    assert got.auc == pytest.approx(plain.auc, abs=0.015)
    assert again.auc == pytest.approx(plain.auc, abs=0.015)


def test_roles_that_do_nothing_are_not_told_apart():
    phi, role = roles(300, 100, shift=0.0)
    assert abs(apart_by_role(phi, role).auc - 0.5) < 0.02


def test_an_example_with_too_few_models_is_left_out_and_said():
    phi, role = roles(300, 50, shift=1.0)
    role[40:, 3] = 0
    got = apart_by_role(phi, role)
    assert math.isnan(got.aucs[3])
    assert math.isnan(got.p[3])
    assert int(got.aucs.isnan().sum()) == 1
    assert "1 of 50 examples: fewer than 64 models" in got.note
    assert 3 not in got.worst(1.0)


@pytest.mark.parametrize(("n", "m"), [(63, 64), (64, 63), (5, 5)])
def test_too_few_models_are_no_number(n, m):
    got = ulira(draw(n, 6, 1, 9.0), draw(m, 6, 2))
    assert math.isnan(got.auc)
    assert bool(got.aucs.isnan().all())
    assert "fewer than 64 models of a kind, 32 to fit and 32 to attack" in got.note
    assert math.isnan(got.exposed_share)
    assert math.isnan(got.quantile(0.5))
    assert len(got.worst()) == 0


def test_fewer_models_may_be_asked_for():
    assert ulira(draw(8, 6, 1, 9.0), draw(8, 6, 2), least=8).auc > 0.95


def test_predictions_are_attacked_as_vectors():
    null = torch.stack([draw(128, 60, s) for s in (1, 2)], -1)
    moved = torch.stack([draw(128, 60, 3, shift=1.2), draw(128, 60, 4, shift=-0.9)], -1)
    got = ulira(moved, null)
    assert abs(got.auc - normal(1.5 / math.sqrt(2))) < 0.03
    one = ulira(moved[..., :1], null[..., :1])
    assert one.auc == pytest.approx(ulira(moved[..., 0], null[..., 0]).auc, abs=1e-4)


def test_a_constant_answer_is_told_apart_completely():
    null = draw(64, 10, 1)
    assert ulira(torch.full_like(null, 50.0), null).auc == 1.0
    assert ulira(torch.full_like(null, -50.0), null).auc == 1.0
    assert ulira(torch.ones_like(null), torch.ones_like(null)).auc == 0.5


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x: ulira(x, x[:, :2]), "same examples"),
        (lambda x: ulira(x / 0, x), "got 192 of 192 that are not"),
        (lambda x: ulira(x, x, least=2), "least must be at least 4"),
        (lambda x: ulira(x, x, null_used=x), "a mask must be boolean"),
        (lambda x: ulira(x[..., None], x), "same examples and numbers"),
    ],
)
def test_bad_input_is_refused(ask, told):
    x = draw(64, 3, 1)
    with pytest.raises(InputError, match=told):
        ask(x)


def test_fishers_test_is_scipys_at_the_edges():
    for right, wrong, m, n in [(0, 0, 4, 5), (4, 0, 4, 5), (4, 5, 4, 5), (2, 1, 4, 5)]:
        table = [[right, m - right], [wrong, n - wrong]]
        want = stats.fisher_exact(table, alternative="greater").pvalue
        got = _fisher(*(torch.tensor([float(v)]).double() for v in (right, wrong, m, n)))
        assert float(got) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_plain_gaussian_of_papers_is_the_one_of_scipy(ddof):
    rng = np.random.default_rng(0)
    ours, null = rng.normal(1.0, 1.5, (64, 5)), rng.normal(0.0, 1.0, (64, 5))
    got = ulira(*map(torch.tensor, (ours, null)), form="normal", prior=0, centre="mean", ddof=ddof)
    accuracies = []
    for fitted in range(2):
        fits = [(c[fitted::2].mean(0), c[fitted::2].std(0, ddof=ddof)) for c in (ours, null)]

        def called(cells, fits=fits):
            mine, other = (stats.norm.logpdf(cells, *f) for f in fits)
            return (mine > other).mean(0)

        judged = ours[1 - fitted :: 2], null[1 - fitted :: 2]
        accuracies.append((1 + called(judged[0]) - called(judged[1])) / 2)
    np.testing.assert_allclose(got.accuracies, np.mean(accuracies, 0), rtol=1e-12)
