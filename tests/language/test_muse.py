import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.language.muse import (
    first_answer,
    knowledge_memory,
    privacy_leak,
    verbatim_memory,
)


def pair(seed, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(60, generator=rng) + shift, torch.randn(50, generator=rng)


def area(forget, held_out):
    """Return the share of pairs in which the forget text scores higher, by all pairs."""
    return (forget[:, None] > held_out[None]).double().mean().item()


def test_verbatim_memory_is_f1_text_by_text():
    got = verbatim_memory(["a b c d", "x"], ["a b c e f g", "x"])
    assert got == pytest.approx([2 * 0.75 * 0.5 / 1.25, 1.0])


def test_knowledge_memory_reads_the_first_answer_only():
    assert knowledge_memory(["Paris\n\nParis is", "Rome"], ["Paris", "Oslo"]) == [1.0, 0.0]


@pytest.mark.parametrize(
    "output", ["Paris\n\nmore", "Paris\nQuestion two", "ParisQuestion: Q\n\n", "Paris"]
)
def test_an_answer_ends_where_the_next_question_starts(output):
    assert first_answer(output) == "Paris"


def test_the_retrained_model_has_no_leak():
    assert privacy_leak(pair(0), pair(0)) == 0


def test_whole_memory_is_minus_100():
    assert privacy_leak((torch.ones(3) + 9, torch.ones(4)), pair(0)) == pytest.approx(-100)


def test_forget_texts_below_all_others_reach_the_upper_end():
    a = area(*pair(0))
    got = privacy_leak((torch.zeros(3), torch.ones(4)), pair(0))
    assert got == pytest.approx(100 * a / (1 - a))


def test_the_leak_is_the_relative_difference_of_the_published_area():
    # the public code's area is that of the loss: held-out below forget
    published = [1 - area(*pair(s, shift)) for s, shift in ((3, 0.4), (4, 0.0))]
    want = 100 * (published[0] - published[1]) / published[1]
    assert privacy_leak(pair(3, 0.4), pair(4)) == pytest.approx(want)


def test_the_published_leak_of_the_fine_tuned_model_is_within_the_range_of_its_corpus():
    # News: the retrained model's area is 0.4772; printed: -99.81 fine-tuned, 93.23 GradDiff
    forget = torch.cat([torch.full((5228,), 1.0), torch.full((4772,), -1.0)])
    retrained = (forget, torch.zeros(1))
    assert privacy_leak((torch.ones(1), torch.zeros(1)), retrained) == pytest.approx(-100)
    assert privacy_leak((-torch.ones(1), torch.zeros(1)), retrained) == pytest.approx(
        100 * 0.5228 / 0.4772
    )


def test_a_retrained_model_that_knows_the_forget_set_is_refused():
    with pytest.raises(InputError, match="choose held-out texts"):
        privacy_leak(pair(0), (torch.ones(3), torch.zeros(3)))
