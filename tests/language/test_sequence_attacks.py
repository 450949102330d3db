import math
import zlib

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from unlearnkit.core.errors import InputError
from unlearnkit.language.sequence_attacks import (
    exposure,
    loss_score,
    min_k_plus_plus_score,
    min_k_score,
    reference_score,
    zlib_score,
)
from unlearnkit.language.token_scores import score_tokens


def scores(seed=0, words=13):
    rng = torch.Generator().manual_seed(seed)
    out = torch.randn(4, 12, words, generator=rng, dtype=torch.float64) * 2
    labels = torch.randint(words, (4, 12), generator=rng)
    labels[2, 7:] = -100
    return out, labels, score_tokens(out, labels)


def by_loop(out, labels, b):
    """Yield log-probability, mean and deviation of each token, by NumPy."""
    for t in range(1, labels.shape[1]):
        if labels[b, t] != -100:
            p = np.exp(out[b, t - 1].numpy())
            p /= p.sum()
            mean = np.average(np.log(p), weights=p)
            spread = math.sqrt(np.average((np.log(p) - mean) ** 2, weights=p))
            yield math.log(p[labels[b, t]]), mean, spread


def test_the_loss_attack_is_minus_the_cross_entropy():
    out, labels, found = scores()
    want = [
        -torch.nn.functional.cross_entropy(o[:-1], x[1:]) for o, x in zip(out, labels, strict=True)
    ]
    torch.testing.assert_close(loss_score(found), torch.stack(want))


def test_zlib_divides_by_the_bytes_of_the_packed_text():
    texts = ["abc" * 40, "a", "something else", "é"]
    found = scores()[2]
    want = loss_score(found) / torch.tensor([len(zlib.compress(t.encode())) for t in texts])
    torch.testing.assert_close(zlib_score(found, texts), want)


def test_zlib_needs_a_text_for_each_sequence():
    with pytest.raises(InputError, match="need as many texts"):
        zlib_score(scores()[2], ["one"])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.7, 1.0])
def test_min_k_is_the_mean_of_the_lowest_tokens(share):
    out, labels, found = scores()
    got = min_k_score(found, share)
    for b in range(4):
        logs = sorted(x[0] for x in by_loop(out, labels, b))
        count = max(1, math.floor(share * len(logs)))
        assert got[b].item() == pytest.approx(sum(logs[:count]) / count, rel=1e-12)


def test_min_k_of_all_tokens_is_the_loss_attack():
    found = scores()[2]
    torch.testing.assert_close(min_k_score(found, 1.0), loss_score(found))


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_min_k_plus_plus_standardizes_by_the_vocabulary(share):
    out, labels, found = scores()
    got = min_k_plus_plus_score(found, share)
    for b in range(4):
        levels = sorted((x - mean) / spread for x, mean, spread in by_loop(out, labels, b))
        count = max(1, math.floor(share * len(levels)))
        assert got[b].item() == pytest.approx(sum(levels[:count]) / count, rel=1e-10)


def test_min_k_plus_plus_of_equal_logits_is_zero():
    found = score_tokens(torch.zeros(1, 5, 7), torch.ones(1, 5, dtype=torch.long))
    assert min_k_plus_plus_score(found, 1.0).item() == 0


def test_min_k_plus_plus_keeps_broken_logits_visible():
    found = score_tokens(torch.full((1, 3, 4), math.nan), torch.ones(1, 3, dtype=torch.long))
    assert min_k_plus_plus_score(found).isnan().all()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_of_tokens_is_above_0_and_at_most_1(share):
    with pytest.raises(InputError, match="share must be above 0"):
        min_k_score(scores()[2], share)


def test_the_reference_attack_of_a_model_against_itself_is_zero():
    a, b = scores(0)[2], scores(5)[2]
    assert (reference_score(a, a) == 0).all()
    torch.testing.assert_close(reference_score(a, b), loss_score(a) - loss_score(b))


def test_exposure_follows_the_rank_among_all_candidates():
    rng = np.random.default_rng(0)
    others, canary = rng.normal(size=1000), rng.normal(size=20)
    got = exposure(torch.tensor(canary), torch.tensor(others))
    for c, e in zip(canary, got.tolist(), strict=True):
        rank = rankdata(np.append(others, c))[-1]
        assert e == pytest.approx(math.log2(1001) - math.log2(rank), abs=1e-12)


def test_exposure_lies_between_0_and_the_bits_of_all_candidates():
    others = torch.arange(1023.0)
    assert exposure(torch.tensor([-1.0, 5000.0]), others).tolist() == [10, 0]


def test_each_canary_can_have_candidates_of_its_own():
    others = torch.tensor([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]])
    got = exposure(torch.tensor([2.5, 2.5]), others)
    torch.testing.assert_close(got, torch.tensor([math.log2(4 / 3), 2.0], dtype=torch.float64))


def test_tied_candidates_count_half():
    assert exposure(torch.tensor([1.0]), torch.ones(6)).item() == pytest.approx(math.log2(7 / 4))


def test_an_unseen_canary_has_more_than_three_bits_one_time_in_eight():
    rng = torch.Generator().manual_seed(0)
    got = exposure(torch.rand(4000, generator=rng), torch.rand(4095, generator=rng))
    share = float((got > 3).double().mean())
    assert abs(share - 1 / 8) < 4 * math.sqrt(1 / 8 * 7 / 8 / 4000)
