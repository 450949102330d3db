"""Margins are checked, and read piece by piece."""

import math

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.stats import matrix_checks as module
from unlearnkit.stats.matrix_checks import blocks, check_margins


def test_finite_margins_of_the_same_examples_pass():
    check_margins("klom", unlearned=torch.zeros(3, 4), oracle=torch.zeros(5, 4))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_margins_that_are_not_finite_are_counted(value):
    oracle = torch.zeros(5, 4)
    oracle[1, 2] = oracle[4, 0] = value
    with pytest.raises(InputError, match="klom: oracle margins must be finite, got 2 of 20"):
        check_margins("klom", unlearned=torch.zeros(3, 4), oracle=oracle)


def test_other_examples_are_refused():
    with pytest.raises(InputError, match="the same examples, got 3 and 4"):
        check_margins("klom", unlearned=torch.zeros(3, 4), oracle=torch.zeros(3, 3))


def test_a_vector_is_no_matrix_of_margins():
    with pytest.raises(InputError, match=r"must be \(models, examples\), got shape \(4,\)"):
        check_margins("klom", unlearned=torch.zeros(4))


@pytest.mark.parametrize("examples", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("each", [0, 3, 1000])
def test_blocks_cover_all_examples_once(examples, each, monkeypatch):
    monkeypatch.setattr(module, "CELLS", 8)
    assert [k for part in blocks(examples, each) for k in range(examples)[part]] == [
        *range(examples)
    ]


def test_blocks_hold_a_bounded_number_of_cells(monkeypatch):
    monkeypatch.setattr(module, "CELLS", 100)
    assert max(30 * (part.stop - part.start) for part in blocks(50, 30)) == 90
