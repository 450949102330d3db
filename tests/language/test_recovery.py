import math

import pytest
import torch
from scipy.stats import rankdata

from unlearnkit.core.errors import InputError
from unlearnkit.language.recovery import recovery_ranks, recovery_ratio

SUBJECTS = [f"s{i // 5}" for i in range(40)]


def answers(share, seed=0, models=3):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(models, 40, generator=rng) < share


def ratio(*sides, subjects=SUBJECTS, **more):
    return recovery_ratio(*sides, subjects, rng=torch.Generator().manual_seed(0), **more)


def test_a_clean_model_has_recovered_whole():
    corrupted, clean = answers(0.2, 1), answers(0.8, 2)
    found = ratio(clean, corrupted, clean)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_corrupted_model_has_recovered_nothing():
    corrupted, clean = answers(0.2, 1), answers(0.8, 2)
    found = ratio(corrupted, corrupted, clean)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_ratio_is_that_of_accuracies():
    u, c, t = answers(0.5, 3), answers(0.2, 1), answers(0.9, 2)
    a, b, d = (x.double().mean().item() for x in (u, c, t))
    found = ratio(u, c, t)
    assert found.value == pytest.approx((a - b) / (d - b))
    assert found.low < found.value < found.high


def test_more_damage_is_below_0():
    assert ratio(answers(0.0), answers(0.4, 1), answers(0.9, 2)).value < 0


def test_without_loss_there_is_no_ratio():
    side = answers(0.5)
    found = ratio(answers(0.8, 1), side, side)
    assert math.isnan(found.value)
    assert "cost less than 0.02" in found.note


def test_the_interval_is_that_of_a_bootstrap_written_as_loops():
    sides = [answers(s, i).double() for i, s in enumerate((0.5, 0.2, 0.9))]
    rng = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(3000):
        models = torch.randint(3, (3,), generator=rng)
        rows = torch.cat(
            [torch.arange(5) + 5 * g for g in torch.randint(8, (8,), generator=rng).tolist()]
        )
        u, c, t = (float(s[models][:, rows].mean()) for s in sides)
        draws.append((u - c) / (t - c))
    low, high = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    found = ratio(*sides, draws=3000)
    # an end of an interval of 0.3 by 3,000 draws has a standard error of about 0.007
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_draws_without_loss_count_at_both_ends_and_many_leave_no_interval():
    n, rng = 40, torch.Generator().manual_seed(2)
    own, clean = [f"q{i}" for i in range(n)], torch.zeros(1, n)
    corrupted = torch.randn(1, n, generator=rng)
    few = -0.4 * (corrupted - corrupted.mean()) - 0.19  # about 0.4 % of draws lose under 0.02
    half = few / 2 + 0.1 * torch.randn(1, n, generator=rng)
    found, draws = ratio(half, few, clean, subjects=own, draws=4000), []
    for _ in range(4000):
        rows = torch.randint(n, (n,), generator=rng)
        loss, gain = -few[0, rows].mean(), (half - few)[0, rows].mean()
        draws.append(float(gain / loss) if loss >= 0.02 else math.nan)
    draws = torch.tensor(draws)
    assert 0 < int(draws.isnan().sum()) < 50
    low = draws.nan_to_num(nan=-10.0).quantile(0.025)
    high = draws.nan_to_num(nan=10.0).quantile(0.975)
    assert "draws" in found.note
    assert found.low == pytest.approx(float(low), abs=0.03)
    assert found.high == pytest.approx(float(high), abs=0.03)
    many = ratio(half + 0.1, few + 0.1, clean, subjects=own)
    assert math.isnan(many.low)
    assert math.isfinite(many.value)


def test_all_questions_of_a_subject_are_drawn_together():
    corrupted, clean = torch.zeros(1, 40), torch.ones(1, 40)
    half = torch.tensor([[float(s in {"s0", "s1", "s2", "s3"}) for s in SUBJECTS]])
    together = ratio(half, corrupted, clean)
    apart = ratio(half, corrupted, clean, subjects=[f"q{i}" for i in range(40)])
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_answers_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="N subjects are needed"):
        ratio(answers(0.5), answers(0.5), answers(0.5), subjects=SUBJECTS[:-1])
    with pytest.raises(InputError, match="N subjects are needed"):
        ratio(answers(0.5, models=2), answers(0.5), answers(0.5))


def test_the_ratio_is_also_one_of_margins():
    u, c, t = (m * torch.ones(2, 40) for m in (0.0, -2.0, 3.0))
    found = ratio(u, c, t)
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))


def ranks(*sides):
    return recovery_ranks(sides, SUBJECTS, rng=torch.Generator().manual_seed(0))


def test_a_method_that_is_better_on_every_question_is_first_in_every_draw():
    best, worst = torch.ones(3, 40), torch.zeros(3, 40)
    first, last = ranks(best, worst)
    assert (first.value, first.low, first.high) == (1, 1, 1)
    assert (last.value, last.low, last.high) == (2, 2, 2)


def test_equal_methods_share_the_mean_of_their_places():
    same = answers(0.5)
    assert [r.value for r in ranks(same, torch.zeros(3, 40), same)] == [1.5, 3, 1.5]


def test_places_follow_scipy_s_ranks_of_the_accuracies():
    sides = [answers(s, i) for i, s in enumerate((0.3, 0.8, 0.5, 0.6))]
    want = rankdata([-float(s.double().mean()) for s in sides])
    assert [r.value for r in ranks(*sides)] == want.tolist()


def test_methods_that_differ_by_chance_have_places_that_overlap():
    one, two = ranks(answers(0.5, 1), answers(0.5, 2))
    assert one.low == two.low == 1
    assert one.high == two.high == 2
