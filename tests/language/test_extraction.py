import pytest
import torch

from unlearnkit.language.extraction import exact_memorization, extraction_strength
from unlearnkit.language.token_scores import TokenScores


def score(*correct):
    blank = torch.zeros(len(correct))
    return TokenScores(blank, torch.tensor(correct, dtype=torch.bool), blank, blank)


@pytest.mark.parametrize(
    ("correct", "exact", "strength"),
    [
        ((1, 1, 1, 1), 1.0, 1.0),
        ((0, 0, 0, 0), 0.0, 0.0),
        ((1, 1, 1, 0), 0.75, 0.0),
        ((0, 1, 1, 1), 0.75, 0.75),
        ((1, 0, 1, 1), 0.75, 0.5),
        ((1, 1, 0, 1), 0.75, 0.25),
    ],
)
def test_a_sequence_of_right_and_wrong_first_choices(correct, exact, strength):
    assert exact_memorization([score(*correct)]).tolist() == [exact]
    assert extraction_strength([score(*correct)]).tolist() == [strength]


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_extraction_strength_is_the_definition(length):
    for number in range(2**length):
        correct = [number >> i & 1 for i in range(length)]
        k = next(k for k in range(length + 1) if all(correct[k:]))
        assert extraction_strength([score(*correct)]).item() == pytest.approx(1 - k / length)


def test_without_tokens_there_is_no_value():
    assert exact_memorization([score()]).isnan().all()
    assert extraction_strength([score()]).isnan().all()
