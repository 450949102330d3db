"""Forgetting quality: levels, power and ceilings, and the competition's rules one by one."""

import math

import pytest
import torch

from unlearnkit.attacks.forgetting_quality import forgetting_quality
from unlearnkit.core.errors import InputError
from unlearnkit.stats import matrix_checks as cells
from unlearnkit.stats.epsilon_bounds import epsilon_table


def normal(models, examples, seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(models, examples, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("models", [64, 128, 512])
def test_without_a_difference_next_to_nothing_is_proven(models):
    got = forgetting_quality(normal(models, 1000, 1), normal(models, 1000, 2))
    # Nominally 0.05: Clopper-Pearson limits on both sides are that careful.
    assert float((got.rows > 0).double().mean()) <= 0.005
    assert got.score == pytest.approx(1.0, abs=0.002)
    assert (got.exposed_count, got.worst) == (0, 0.0)
    assert float((got.q <= 0.05).double().mean()) == 0.0


@pytest.mark.parametrize(
    ("models", "shift", "least"), [(64, 1, 0.39), (128, 1, 0.73), (256, 1, 0.91), (512, 0.5, 0.66)]
)
def test_shifts_are_found_at_least_as_often_as_by_the_specified_threshold(models, shift, least):
    got = forgetting_quality(normal(models, 800, 1) + shift, normal(models, 800, 2))
    assert float((got.rows > 0).double().mean()) > least


@pytest.mark.parametrize(("models", "median"), [(64, 1.98), (128, 2.53), (256, 3.06), (512, 3.67)])
def test_four_deviations_have_the_known_median(models, median):
    got = forgetting_quality(normal(models, 500, 1) + 4, normal(models, 500, 2))
    # One error more or less moves the bound by 0.14.
    assert float(got.rows.median()) == pytest.approx(median, abs=0.15)


@pytest.mark.parametrize(("attacked", "ceiling"), [(64, 2.82), (128, 3.53)])
def test_separated_models_reach_the_ceiling(attacked, ceiling):
    got = forgetting_quality(normal(2 * attacked, 1, 1) + 100, normal(2 * attacked, 1, 2))
    assert float(got.rows) == pytest.approx(ceiling, abs=0.005)
    assert got.worst == got.ceiling == float(got.corrected_rows)
    assert got.exposed_count == 1


@pytest.mark.parametrize("shift", [5.0, -5.0])
def test_the_shift_tells_too_familiar_from_too_strange(shift):
    got = forgetting_quality(normal(64, 3, 1) + shift, normal(64, 3, 2))
    assert got.exposed_count == 3
    assert (got.shift.sign() == math.copysign(1, shift)).all()


def test_a_change_of_spread_is_found_without_a_shift():
    got = forgetting_quality(normal(128, 20, 1) / 5, normal(128, 20, 2))
    assert (got.rows > 0).all()


@pytest.mark.parametrize(("constant", "errors"), [(0.0, 3), (9.0, 0), (-9.0, 0)])
def test_a_constant_margin_is_found_wherever_it_lies(constant, errors):
    u = torch.full((64, 5), constant, dtype=torch.float64)
    got = forgetting_quality(u, normal(64, 5, 2))
    # Among oracles' own margins a few of them come as near to the constant as those fitted on.
    least = float(epsilon_table(32, 32, level=1 - 0.05 / 5)[errors, 0])
    assert least <= float(got.corrected_rows.min()) <= got.worst <= got.ceiling


def test_two_equal_constants_prove_nothing():
    got = forgetting_quality(torch.ones(32, 2), torch.ones(32, 2))
    assert got.rows.tolist() == [0.0, 0.0]
    assert got.p.tolist() == [1.0, 1.0]


def test_bounds_for_all_at_once_are_smaller_and_p_values_agree_with_them():
    got = forgetting_quality(normal(128, 60, 1) + 1, normal(128, 60, 2))
    assert (got.corrected_rows <= got.rows).all()
    assert torch.equal(got.rows > 0, got.p < 0.05)
    assert torch.equal(got.corrected_rows > 0, got.p < 0.05 / 60)
    assert got.exposed_count == int((got.corrected_rows > 0).sum())


def test_the_score_halves_with_every_half_nat():
    got = forgetting_quality(normal(64, 200, 1) + 2, normal(64, 200, 2))
    want = [2 / 2 ** (1 + math.floor(e / 0.5)) for e in got.rows.tolist()]
    assert got.score == pytest.approx(sum(want) / 200)


def test_the_numbers_of_an_example_do_not_depend_on_the_others():
    u, o = normal(64, 30, 1) + 1.5, normal(64, 30, 2)
    torch.testing.assert_close(
        forgetting_quality(u[:, 3:5], o[:, 3:5]).rows, forgetting_quality(u, o).rows[3:5]
    )


def test_pieces_do_not_change_the_numbers(monkeypatch):
    u, o = normal(32, 50, 1) + 1, normal(40, 50, 2)
    want = forgetting_quality(u, o)
    monkeypatch.setattr(cells, "CELLS", 5000)
    assert torch.equal(forgetting_quality(u, o).rows, want.rows)


def test_so_few_models_that_no_corrected_bound_is_possible_are_told():
    got = forgetting_quality(normal(16, 5000, 1), normal(16, 5000, 2))
    assert got.ceiling == 0.0
    assert "8 and 8 attacked models prove nothing when corrected" in got.note


@pytest.mark.parametrize(("n", "m"), [(15, 64), (64, 15), (0, 0)])
def test_too_few_models_have_no_number(n, m):
    got = forgetting_quality(torch.zeros(n, 3), torch.zeros(m, 3))
    assert got.rows.isnan().all()
    assert math.isnan(got.score)
    assert f"{n} unlearned models and {m} oracles" in got.note


def test_no_examples_have_no_score():
    assert forgetting_quality(torch.zeros(32, 0), torch.zeros(32, 0)).note == "no examples"


def test_margins_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="oracle margins must be finite, got 64 of 64"):
        forgetting_quality(torch.zeros(32, 2), torch.full((32, 2), math.inf))
