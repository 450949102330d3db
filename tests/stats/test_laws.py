"""Laws over models against SciPy, one example at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.stats.densities import fit_law, log_ratio


def cells(k=12, examples=5, width=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (k, examples) if width is None else (k, examples, width)
    z = torch.randn(shape, generator=draw, dtype=torch.float64)
    spread = torch.rand(shape[1:], generator=draw, dtype=torch.float64) + 0.5
    return z * spread + 10 * torch.randn(shape[1:], generator=draw, dtype=torch.float64)


def pooled(columns):
    return sum((len(c) - 1) * np.var(c, ddof=1) for c in columns) / sum(len(c) - 1 for c in columns)


@pytest.mark.parametrize("k", [2, 8, 9, 12])
@pytest.mark.parametrize("prior", [0.0, 3.0, 8.0])
def test_the_law_is_students_with_the_shrunk_variance(k, prior):
    phi, x = cells(k), cells(3, seed=1)
    law = fit_law(phi, prior=prior)
    common = pooled(phi.T.numpy())
    for e, column in enumerate(phi.T.numpy()):
        df = prior + k - 1
        scale = math.sqrt((prior * common + (k - 1) * column.var(ddof=1)) / df * (1 + 1 / k))
        middle = np.median(column) if k >= 9 else column.mean()
        want = stats.t(df, middle, scale)
        np.testing.assert_allclose(law.log_density(x)[:, e], want.logpdf(x[:, e]), rtol=1e-10)
        np.testing.assert_allclose(law.below(x)[:, e], want.cdf(x[:, e]), rtol=1e-10)
        odds = want.logcdf(x[:, e]) - want.logsf(x[:, e])
        np.testing.assert_allclose(law.log_odds_below(x)[:, e], odds, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("prior", "of"), [(0.0, "own"), (math.inf, "common")])
def test_a_normal_law_has_the_plain_deviation(prior, of):
    phi, x = cells(7), cells(3, seed=1)
    law = fit_law(phi, prior=prior, form="normal")
    for e, column in enumerate(phi.T.numpy()):
        variance = column.var(ddof=1) if of == "own" else pooled(phi.T.numpy())
        want = stats.norm(column.mean(), math.sqrt(variance))
        np.testing.assert_allclose(law.log_density(x)[:, e], want.logpdf(x[:, e]), rtol=1e-10)
        np.testing.assert_allclose(law.below(x)[:, e], want.cdf(x[:, e]), rtol=1e-10)


def test_one_variance_for_all_leaves_no_doubt_about_it():
    phi, x = cells(4), cells(3, seed=1)
    law = fit_law(phi, prior=math.inf)
    scale = math.sqrt(pooled(phi.T.numpy()) * (1 + 1 / 4))
    want = stats.norm(phi.mean(0), scale).logpdf(x)
    np.testing.assert_allclose(law.log_density(x), want, rtol=1e-10)


def test_cells_that_do_not_count_are_as_if_not_there():
    phi = cells(14)
    used = torch.rand(14, 5, generator=torch.Generator().manual_seed(3)) < 0.7
    law = fit_law(phi, used)
    columns = [phi[used[:, e], e].numpy() for e in range(5)]
    common = torch.tensor(pooled(columns))
    for e, column in enumerate(columns):
        alone = fit_law(torch.from_numpy(column)[:, None], common=common)
        torch.testing.assert_close(law.centre[e], alone.centre[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(law.scale[e], alone.scale[0], rtol=1e-12, atol=0)
        assert law.freedom[e] == 8 + len(column) - 1


def test_a_vector_law_is_the_multivariate_t():
    phi, x = cells(6, 4, width=3), cells(2, 4, width=3, seed=1)
    law = fit_law(phi)
    own = [np.cov(phi[:, e].numpy().T) for e in range(4)]
    common = sum(own) / 4
    for e in range(4):
        shape = (8 * common + 5 * own[e]) / 13 * (1 + 1 / 6)
        want = stats.multivariate_t(phi[:, e].mean(0).numpy(), shape, df=13)
        got = law.log_density(x)[:, e]
        np.testing.assert_allclose(got, want.logpdf(x[:, e].numpy()), rtol=1e-6)


@pytest.mark.parametrize("form", ["student", "normal"])
def test_a_vector_of_one_number_is_that_number(form):
    phi, x = cells(11), cells(3, seed=1)
    one, many = fit_law(phi, form=form), fit_law(phi[..., None], form=form)
    torch.testing.assert_close(
        many.log_density(x[..., None]), one.log_density(x), rtol=1e-7, atol=1e-7
    )


def test_pieces_give_what_the_whole_gives(monkeypatch):
    phi, used = cells(5, 40), torch.rand(5, 40) < 0.8
    used[0] = True
    whole = fit_law(phi, used)
    monkeypatch.setattr("unlearnkit.stats.matrix_checks.CELLS", 50)
    pieces = fit_law(phi, used)
    torch.testing.assert_close(whole.centre, pieces.centre, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.scale, pieces.scale, rtol=1e-13, atol=0)


def test_a_point_is_a_law_without_spread():
    law = fit_law(torch.full((3, 2), 4.0, dtype=torch.float64))
    x = torch.tensor([[4.0, 5.0]], dtype=torch.float64)
    assert law.log_density(x).tolist() == [[math.inf, -math.inf]]
    assert law.below(x).tolist() == [[0.5, 1.0]]
    assert log_ratio(law, law, x).tolist() == [[0.0, 0.0]]
    wide = fit_law(cells(5, 2))
    assert log_ratio(law, wide, x).tolist() == [[math.inf, -math.inf]]


def test_an_example_without_models_has_no_law():
    phi = cells(4)
    used = torch.ones(4, 5, dtype=torch.bool)
    used[:, 2] = False
    nothing = fit_law(phi, used).log_density(phi).isnan()
    assert bool(nothing[:, 2].all())
    assert not bool(nothing[:, [0, 1, 3, 4]].any())


def test_one_model_tells_no_variance():
    assert bool(fit_law(cells(1)).log_density(cells(2)).isnan().all())
    known = fit_law(cells(1), common=torch.tensor(2.0, dtype=torch.float64))
    assert known.scale.tolist() == pytest.approx([2.0] * 5)


def test_vectors_that_do_not_vary_in_a_direction_still_have_a_law():
    phi = cells(6, 4, width=3)
    phi[..., 2] = phi[..., 0] + phi[..., 1]
    assert bool(fit_law(phi).log_density(phi).isfinite().all())


def test_far_out_the_tail_still_orders():
    law = fit_law(cells(64, 1))
    far = law.log_odds_below(law.centre + torch.tensor([[20.0], [30.0], [40.0]]) * law.scale)
    assert bool((far.diff(dim=0) > 0).all())


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_plain_gaussian_has_numpys_mean_and_deviation(ddof):
    cells = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = fit_law(cells, prior=0, form="normal", centre="mean", ddof=ddof)
    torch.testing.assert_close(law.centre, torch.tensor(cells.numpy().mean(0)))
    torch.testing.assert_close(law.scale, torch.tensor(cells.numpy().std(0, ddof=ddof)))
