"""What no attack may answer with a number: too few models, no examples, what does not fit."""

import math

import pytest
import torch

from unlearnkit.attacks.forgetting_quality import forgetting_quality
from unlearnkit.attacks.iam import iam_scores
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.lira import lira
from unlearnkit.attacks.permutation import permutation_test, smallest_shift
from unlearnkit.attacks.quantile_attack import (
    AttackRows,
    quantile_threshold_attack,
    scaled_residual_attack,
)
from unlearnkit.attacks.rmia import rmia
from unlearnkit.attacks.ulira import ulira
from unlearnkit.attacks.wasserstein import wasserstein
from unlearnkit.core.errors import InputError

EXAMPLES = 6


def rng():
    return torch.Generator().manual_seed(0)


def margins(models, examples=EXAMPLES, seed=0):
    own = torch.Generator().manual_seed(seed)
    return torch.randn(models, examples, generator=own, dtype=torch.float64)


def half(u):
    return torch.arange(u.shape[1]) % 2 == 0


def strangers(side):
    return margins(len(side), 50, seed=5)


ATTACKS = {
    "klom": (klom, 20),
    "klom, published bins": (lambda u, o: klom(u, o, bins="equal"), 20),
    "wasserstein": (wasserstein, 3),
    "permutation": (lambda u, o: permutation_test(u, o, rng=rng(), draws=19), 2),
    "quality": (forgetting_quality, 16),
    "ulira": (ulira, 64),
    "lira": (lira, 4),
    "degree": (lambda u, o: iam_scores(u, u, o), 2),
    "rmia": (lambda u, o: rmia(u, o, strangers(u), strangers(o)), 1),
}
"""Each with the oracles from which on it has a number."""

SCALARS = {
    "klom": ("median", "percentile_95"),
    "klom, published bins": ("median", "percentile_95"),
    "wasserstein": ("median", "percentile_95"),
    "permutation": ("p", "statistic"),
    "quality": ("score", "worst", "exposed_count", "ceiling"),
    "ulira": ("auc", "accuracy", "tpr_at_1_percent", "exposed_share"),
    "lira": (),
    "degree": ("value", "oracle_value", "over_share"),
}
NUMBERS = ("rows", "shift", "p", "q", "rows_p", "aucs", "accuracies", "shifts", "scores")


def values(name, found):
    """Yield every number that is stated, by its name."""
    for field in SCALARS[name]:
        yield field, getattr(found, field)
    for field in NUMBERS:
        held = getattr(found, field, None)
        if isinstance(held, torch.Tensor):
            yield from ((field, value) for value in held.flatten().tolist())


FEW = [name for name, (_, least) in ATTACKS.items() if least > 1]


@pytest.mark.parametrize("name", FEW)
def test_too_few_models_are_nan_with_the_reason(name):
    attack, least = ATTACKS[name]
    found = attack(margins(max(least, 3)), margins(least - 1, seed=1))
    told = dict(values(name, found))
    assert [field for field, value in told.items() if not math.isnan(value)] == []
    assert found.note


@pytest.mark.parametrize("name", ATTACKS)
def test_no_examples_are_no_number(name):
    attack, least = ATTACKS[name]
    found = attack(margins(max(least, 4), 0), margins(max(least, 4), 0, seed=1))
    told = dict(values(name, found)) if name in SCALARS else {}
    assert [field for field, value in told.items() if not math.isnan(value)] == []
    assert "nan" not in found.note


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ATTACKS)
def test_margins_that_are_not_finite_are_refused_with_their_number(name, side, bad):
    attack, least = ATTACKS[name]
    sides = [margins(max(least, 4), seed=k) for k in range(2)]
    sides[side][1, :2] = bad
    with pytest.raises(InputError, match=rf"got 2 of {len(sides[0]) * EXAMPLES} that are not"):
        attack(*sides)


@pytest.mark.parametrize("name", ATTACKS)
def test_sides_with_other_examples_are_refused(name):
    attack, least = ATTACKS[name]
    with pytest.raises(InputError, match=r"same (examples|columns)"):
        attack(margins(max(least, 4)), margins(max(least, 4), EXAMPLES + 1))


def test_a_shift_cannot_be_asked_for_without_models_or_examples():
    for u, o in ((margins(1), margins(5)), (margins(5, 0), margins(5, 0))):
        assert math.isnan(smallest_shift(u, o, rng=rng(), draws=4))


@pytest.mark.parametrize("attack", [quantile_threshold_attack, scaled_residual_attack])
def test_few_never_seen_rows_have_no_area(attack):
    rows = [AttackRows(-margins(1, n, seed=n)[0].abs(), margins(n, 3)) for n in (30, 20)]
    found = attack(*rows, rng())
    assert math.isnan(found.auc)
    assert "there are 20 and 30" in found.note


def test_examples_that_all_references_saw_are_left_out_of_what_is_found():
    u, o = margins(2, 40), margins(3, 40, seed=1)
    inside = torch.zeros(3, 40, dtype=torch.bool)
    inside[:, :4] = True
    found = rmia(u, o, strangers(u), strangers(o), inside=inside)
    known = rmia(u[:, 4:], o[:, 4:], strangers(u), strangers(o), inside=inside[:, 4:])
    assert bool(found.log_ratios[:, :4].isnan().all())
    torch.testing.assert_close(found.log_ratios[:, 4:], known.log_ratios)
