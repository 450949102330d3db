"""Ten deletions: what a placebo may see, what memory is, and how limits are counted."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from experiments.ten_deletions import (
    Chain,
    Familiarity,
    Outcome,
    adjusted,
    forget_rows,
    forget_views,
    memory,
    no_rows,
    outcome,
    twenty_classes,
)
from unlearnkit.core.data import TensorData, View


@pytest.fixture
def chain():
    x, y = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 4
    case = uk.Case(
        train=(x, y), validation=(x[:4], y[:4]), keys=range(20), task=uk.Classification(4)
    )
    return Chain(case, (uk.Rows(3, 5), uk.Rows(0, 19), uk.Rows(7, 8)))


def keys(case):
    return set(case.keys.rows)


def test_a_placebo_has_the_rows_of_its_own_request_and_of_no_other(chain):
    rest = set(range(20)) - {3, 5, 0, 19, 7, 8}
    assert keys(chain.never_saw(1)) == rest | {0, 19}
    assert keys(chain.never_saw(2)) == rest | {7, 8}
    assert keys(chain.before(2)) == rest | {7, 8}
    assert keys(chain.before(1)) == set(range(20)) - {3, 5}


def test_the_rows_of_a_request_are_those_that_its_keys_name(chain):
    firsts = [v.data.x[v.rows][:, 0].tolist() for v in forget_views(chain)]
    assert firsts == [[6.0, 10.0], [0.0, 38.0], [14.0, 16.0]]


def test_the_door_of_forget_rows_shows_no_other_training_row(chain):
    case, request = forget_rows(chain.before(1), chain.requests[1], None)
    assert request is None
    assert case.train is None
    parts = case.partition(None)
    assert parts.retain is None
    assert parts.forget.data.x[:, 0].tolist() == [0.0, 38.0]


def test_the_door_without_rows_knows_the_classes_that_went_before():
    ten = twenty_classes()
    case, request = no_rows(ten.before(2), ten.requests[2], None)
    assert case.train is None
    assert case.partition(request).removed_classes == (0, 3, 4)
    assert sorted(set(ten.case.train.y.tolist())) == list(range(20))


class Fixed(nn.Module):
    """Answers a row with the logits that it is."""

    def __init__(self, lift):
        super().__init__()
        self.lift = nn.Parameter(torch.tensor(lift))

    def forward(self, x):
        return x * self.lift


def test_memory_is_a_half_for_equal_models_and_one_where_only_forget_rows_are_surer(chain):
    rng = torch.Generator().manual_seed(0)
    y = torch.zeros(30, dtype=torch.long)
    sure = View.all(TensorData(torch.rand(30, 4, generator=rng) + 9 * torch.eye(4)[0], y))
    flat = View.all(TensorData(torch.zeros(30, 4), y))
    ours, same = [Fixed(2.0)], [Fixed(1.0)]

    def told(models, placebo):
        sides = (Familiarity.of(models, placebo, rows, chain.case) for rows in (sure, flat))
        return memory(*sides)

    assert told(same, [Fixed(1.0)])["auc"] == 0.5
    found = told(ours, same)
    assert found["auc"] == 1.0
    assert found["p_right"] == 1.0
    assert found["p"] < 1e-6
    wrong = told(same, [Fixed(-1.0)])
    assert wrong["p_right"] < 1e-6


def test_p_values_are_adjusted_as_holm_did():
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted([0.9, 0.8]) == [1.0, 1.0]


def step(retained, work, p, p_all, p_right=1.0):
    each = [{"auc": 0.5, "p": v} for v in p]
    return {
        "retained": retained,
        "retained_retrained": 0.99,
        "work": work,
        "memory": each,
        "memory_all": {"auc": 0.5, "p": p_all, "p_right": p_right},
    }


@pytest.mark.parametrize(
    ("last", "missed"),
    [
        (step(0.985, [11, 11], [0.2, 0.02], 0.9), []),
        (step(0.975, [11, 11], [0.2, 0.5], 0.9), ["retained accuracy"]),
        (step(0.985, [12, 11], [0.2, 0.01], 0.9), ["memory", "cost"]),
        (step(0.985, [10, 10], [0.2, 0.5], 0.001), ["memory"]),
        (step(0.985, [10, 10], [0.2, 0.5], 0.5, 0.001), ["memory"]),
    ],
)
def test_a_limit_that_is_passed_is_named(last, missed):
    found = outcome({"steps": [step(0.99, [10, 10], [0.5], 0.5), last]})
    assert isinstance(found, Outcome)
    assert found.missed == missed
