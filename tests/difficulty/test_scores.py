"""Scores in feature space: against closed forms, NumPy and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from unlearnkit.core.errors import InputError
from unlearnkit.difficulty.entanglement import distance_to_mean, entanglement
from unlearnkit.difficulty.least_disagree import least_disagree
from unlearnkit.difficulty.worst_case import worst_case


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


PLANE = torch.tensor([[1.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("weight", [PLANE, torch.cat([0 * PLANE, PLANE])], ids=["logit", "pair"])
def test_in_the_plane_the_least_disagreement_is_the_angle_to_the_boundary(weight):
    pool, sample = normal(200, 2), normal(4000, 2, seed=1)
    angle = ((pool @ PLANE[0]) / PLANE.norm() / pool.norm(dim=1)).asin().abs() / math.pi
    found = least_disagree(pool, sample, weight, None, rng(2), draws=20)
    assert float((found - angle).abs().mean()) < 0.01
    assert spearmanr(found, angle).statistic > 0.998


def layered(factor=1.0, draws=3, rows=slice(None)):
    weight, bias = normal(4, 6, seed=3), normal(4, seed=4)
    pool, sample = normal(30, 6, seed=5)[rows], normal(300, 6, seed=6)
    return least_disagree(pool, sample, factor * weight, factor * bias, rng(7), draws=draws)


def test_a_layer_times_a_constant_scores_the_same():
    assert torch.equal(layered(), layered(factor=8.0))


def test_more_draws_never_raise_a_score():
    assert bool((layered(draws=6) <= layered(draws=3)).all())
    assert bool((layered(draws=6) < layered(draws=3)).any())


def test_a_row_scores_the_same_whoever_stands_beside_it():
    assert torch.equal(layered()[10:20], layered(rows=slice(10, 20)))


def test_a_row_on_the_boundary_scores_lowest():
    weight = normal(3, 6, seed=3)
    weight[1] = weight[0]
    pool = torch.cat([10 * weight[:1], 10 * weight[2:]])
    found = least_disagree(pool, normal(300, 6, seed=6), weight, None, rng(7))
    assert found[0] < found[1]


def by_hand(f, r):
    middle = np.concatenate([f, r]).mean(0)
    within = ((f - f.mean(0)) ** 2).sum(1).mean() + ((r - r.mean(0)) ** 2).sum(1).mean()
    between = ((f.mean(0) - middle) ** 2).sum() + ((r.mean(0) - middle) ** 2).sum()
    return within / (between / 2)


def test_entanglement_is_the_formula():
    f, r = normal(7, 5), normal(40, 5, seed=1) + 0.5
    assert entanglement(f, r) == pytest.approx(by_hand(f.numpy(), r.numpy()), rel=1e-12)


def test_entanglement_does_not_change_with_shift_and_scale():
    f, r = normal(7, 5), normal(40, 5, seed=1) + 0.5
    assert entanglement(3 * f + 2, 3 * r + 2) == pytest.approx(entanglement(f, r), rel=1e-9)


def test_sets_that_lie_apart_are_less_entangled():
    f, r = normal(50, 5), normal(50, 5, seed=1)
    assert entanglement(f + 5, r) < 1 < entanglement(f, r)


@pytest.mark.parametrize(
    ("f", "r", "wanted"), [(0, 3, math.nan), (3, 0, math.nan), (3, 3, math.inf)]
)
def test_entanglement_without_rows_is_undefined_and_without_distance_infinite(f, r, wanted):
    rows = normal(3, 5)
    assert entanglement(rows[:f], rows[:r]) == pytest.approx(wanted, nan_ok=True)


def test_eccentricity_is_the_distance_to_the_mean():
    x = normal(9, 4)
    want = np.linalg.norm(x.numpy() - x.numpy().mean(0), axis=1)
    np.testing.assert_allclose(distance_to_mean(x), want, rtol=1e-12)


class Head:
    """A last layer on random features, with gradients by autograd."""

    def __init__(self, rows=9, width=4, classes=3):
        self.features, self.y = normal(rows, width), torch.arange(rows) % classes
        self.weight, self.bias = normal(classes, width, seed=1), normal(classes, seed=2)
        self.log_p = (self.features @ self.weight.T + self.bias).log_softmax(1)
        self.losses = -self.log_p[torch.arange(rows), self.y]
        self.grads = torch.stack([self.grad(i) for i in range(rows)])
        self.classes = classes

    def grad(self, i):
        weight, bias = self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()
        out = self.features[i] @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(out[None], self.y[i : i + 1])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, (weight, bias))])

    def left(self, rows, step):
        """Return the loss that a step of ascent on a set leaves it, to first order."""
        rows = list(rows)
        return float(self.losses[rows].sum() + step * self.grads[rows].sum(0).square().sum())

    def step(self, count, reach=1.0):
        """Return the step that adds so many nats to the mean loss of a set drawn at random."""
        alone = self.grads.square().sum(1).mean()
        return reach / float(alone + (count - 1) * self.grads.mean(0).square().sum())


@pytest.mark.parametrize(("rows", "count"), [(9, 1), (9, 2), (9, 4), (40, 15)])
def test_the_worst_case_adds_the_row_that_raises_the_loss_left_the_least(rows, count):
    head = Head(rows)
    step, chosen = head.step(count), []
    for _ in range(count):
        others = [i for i in range(rows) if i not in chosen]
        chosen.append(min(others, key=lambda i: head.left([*chosen, i], step)))
    assert worst_case(head.features, head.log_p, head.y, count).tolist() == chosen


def test_the_greedy_set_is_among_the_worst_fiftieth_of_all_sets():
    head = Head()
    step = head.step(3)
    found = head.left(worst_case(head.features, head.log_p, head.y, 3).tolist(), step)
    every = [head.left(rows, step) for rows in itertools.combinations(range(9), 3)]
    assert found <= np.quantile(every, 0.02)


@pytest.mark.parametrize("count", [0, 9, -1])
def test_a_worst_case_of_no_or_all_rows_is_refused(count):
    head = Head()
    with pytest.raises(InputError, match="between 1 and 8 rows"):
        worst_case(head.features, head.log_p, head.y, count)
