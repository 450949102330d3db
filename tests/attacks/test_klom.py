"""KLoM against a plain histogram, its published floor, and what fooled the released codes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.attacks.klom import klom
from unlearnkit.core.errors import InputError
from unlearnkit.stats import matrix_checks as cells

ALL = ["quantile", "equal", "easydub", "bench"]


def normal(models, examples, seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(models, examples, generator=rng, dtype=torch.float64)


def released(ours, theirs, *, code):
    """One example by the released recipe: shared half-open bins, digitised."""
    ours, theirs = np.clip(ours, -100, 100), np.clip(theirs, -100, 100)
    low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
    edges = np.linspace(low, high if high > low else low + 1, 21)
    shares = []
    for sample in (ours, theirs):
        at = np.digitize(sample, edges)
        if code == "equal":
            at = at.clip(max=20)
        counts = np.array([(at == k).sum() for k in range(1, 21)])
        shares.append(counts / max(counts.sum(), 1))
    p, q = shares
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    if code == "bench":
        with np.errstate(invalid="ignore"):
            return stats.entropy(p, q)
    return (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()


@pytest.mark.parametrize("code", ["equal", "easydub", "bench"])
@pytest.mark.parametrize("change", ["same", "shift", "narrow", "rounded", "far"])
def test_equal_bins_are_those_of_the_codes(code, change):
    u, o = normal(40, 25, 1), normal(50, 25, 2)
    u = {"same": u, "shift": u + 2, "narrow": u / 9, "rounded": u.round(), "far": u * 200}[change]
    want = [released(a, b, code=code) for a, b in zip(u.T.numpy(), o.T.numpy(), strict=True)]
    got = klom(u, o, bins=code)
    torch.testing.assert_close(got.rows, torch.tensor(np.array(want)), equal_nan=True)
    if code != "bench":
        assert got.percentile_95 == pytest.approx(np.percentile(want, 95))
        assert got.median == pytest.approx(np.median(want))


@pytest.mark.parametrize(
    ("models", "mean", "high"),
    [(20, 3.02, 5.11), (50, 0.85, 1.69), (100, 0.34, 0.66), (200, 0.14, 0.28), (500, 0.05, 0.09)],
)
def test_the_floor_of_the_published_bins_is_the_known_one(models, mean, high):
    rows = klom(normal(models, 1500, 1), normal(models, 1500, 2), bins="easydub").rows
    assert float(rows.mean()) == pytest.approx(mean, abs=0.01 + 4 * float(rows.std()) / 1500**0.5)
    assert float(rows.quantile(0.95)) == pytest.approx(high, rel=0.1)


@pytest.mark.parametrize(("models", "mean", "high"), [(64, 0.15, 0.27), (100, 0.10, 0.18)])
def test_the_floor_of_quantile_bins_is_a_third_of_that(models, mean, high):
    got = klom(normal(models, 1500, 1), normal(models, 1500, 2))
    assert float(got.rows.mean()) == pytest.approx(mean, abs=0.01)
    assert got.percentile_95 == pytest.approx(high, rel=0.1)


def test_quantile_bins_tell_half_a_deviation_from_the_floor_more_often():
    u, o = normal(100, 800, 1), normal(100, 800, 2)

    def told(bins):
        a, b = klom(u + 0.5, o, bins=bins).rows, klom(u, o, bins=bins).rows
        return float((a[:, None] > b).double().mean())

    assert told("quantile") == pytest.approx(0.90, abs=0.03)
    assert told("equal") == pytest.approx(0.78, abs=0.03)


@pytest.mark.parametrize("bins", ALL)
def test_a_sample_has_no_divergence_from_itself(bins):
    u = normal(30, 10, 1)
    torch.testing.assert_close(klom(u, u, bins=bins).rows, torch.zeros(10, dtype=torch.float64))


@pytest.mark.parametrize("bins", ["quantile", "equal"])
@pytest.mark.parametrize("far", [5.0, 20.0, 1000.0])
def test_a_constant_above_all_oracles_is_as_bad_as_one_below(bins, far):
    o = normal(100, 20, 1)
    o = torch.cat([o, -o])
    above, below = (torch.full((100, 20), c, dtype=torch.float64) for c in (far, -far))
    high, low = klom(above, o, bins=bins).rows, klom(below, o, bins=bins).rows
    torch.testing.assert_close(high, low)
    assert float(high.min()) > 4


def test_the_codes_score_a_constant_above_all_oracles_as_perfect_or_not_at_all():
    o, above = normal(100, 5, 1), torch.full((100, 5), 50.0, dtype=torch.float64)
    assert klom(above, o, bins="easydub").rows.tolist() == [0.0] * 5
    lost = klom(above, o, bins="bench")
    assert lost.rows.isnan().all()
    assert math.isnan(lost.percentile_95)
    assert "undefined for 5 of 5" in lost.note


def test_two_constants_as_each_code_reads_them():
    low, high = torch.zeros(30, 1), torch.ones(30, 1)
    found = [[float(klom(u, o, bins=b).rows) for b in ALL] for u, o in ((high, low), (low, high))]
    most = math.log(1e5)
    assert found[0][1:] == pytest.approx([most, 0.0, math.nan], nan_ok=True)
    assert found[1][1:] == pytest.approx([most, most, 0.0], abs=1e-4)
    assert found[0][0] == pytest.approx(found[1][0])
    assert found[0][0] > 3


@pytest.mark.parametrize("bins", ALL)
def test_one_stray_model_hides_the_others_only_in_equal_bins(bins):
    u, o = normal(100, 50, 1) + 2, normal(100, 50, 2)
    stray = u.clone()
    stray[0] = -100.0
    share = klom(stray, o, bins=bins).median / klom(u, o, bins=bins).median
    assert share > 0.95 if bins == "quantile" else share < 0.1


def test_mirrored_margins_have_equal_numbers():
    u, o = normal(40, 10, 1).exp(), normal(40, 10, 2).exp()
    torch.testing.assert_close(klom(u, o).rows, klom(-u, -o).rows)


def test_quantile_bins_do_not_depend_on_the_scale():
    u, o = normal(40, 10, 1), normal(40, 10, 2)
    torch.testing.assert_close(klom(u, o).rows, klom(7 * u + 3, 7 * o + 3).rows)


@pytest.mark.parametrize("bins", ALL)
def test_pieces_do_not_change_the_numbers(bins, monkeypatch):
    u, o = normal(30, 50, 1), normal(30, 50, 2)
    want = klom(u, o, bins=bins)
    monkeypatch.setattr(cells, "CELLS", 1000)
    torch.testing.assert_close(klom(u, o, bins=bins).rows, want.rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(19, 100), (100, 19), (0, 0)])
def test_too_few_models_have_no_number(n, m):
    got = klom(torch.zeros(n, 3), torch.zeros(m, 3))
    assert got.rows.isnan().all()
    assert math.isnan(got.percentile_95)
    assert f"{n} unlearned models and {m} oracles; 20 of each" in got.note


def test_no_examples_have_no_percentile():
    assert klom(torch.zeros(30, 0), torch.zeros(30, 0)).note == "no examples"


def test_margins_that_are_not_finite_are_refused():
    u = torch.zeros(30, 2)
    u[3, 1] = math.nan
    with pytest.raises(InputError, match="klom: unlearned margins must be finite, got 1 of 60"):
        klom(u, torch.zeros(30, 2))


@pytest.mark.parametrize("oracles", range(20, 64))
@pytest.mark.parametrize("rounded", [False, True])
def test_mirrored_margins_get_the_same_number_for_every_number_of_oracles(oracles, rounded):
    ours, theirs = normal(40, 8, seed=1), normal(oracles, 8, seed=2)
    if rounded:  # ties among oracles, and unlearned margins on the edges
        ours, theirs = ours.mul(2).round() / 2, theirs.mul(2).round() / 2
    ours[:5] = theirs[:5]
    plain, mirrored = klom(ours, theirs).rows, klom(-ours, -theirs).rows
    torch.testing.assert_close(plain, mirrored, rtol=1e-12, atol=1e-12)
