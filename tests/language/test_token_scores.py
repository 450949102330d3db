import math

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.language.token_scores import mean_log_probs, score_tokens


def logits(*, rows=3, tokens=7, words=11, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, words, generator=rng, dtype=torch.float64) * 3


def labels(*, rows=3, tokens=7, words=11, seed=1):
    return torch.randint(words, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_each_token_is_scored_by_the_position_before_it():
    out, wanted = logits(), labels()
    found = score_tokens(out, wanted)
    for b in range(3):
        for t in range(1, 7):
            total = math.fsum(math.exp(z) for z in out[b, t - 1].tolist())
            by_hand = out[b, t - 1, wanted[b, t]].item() - math.log(total)
            assert found[b].log_probs[t - 1].item() == pytest.approx(by_hand, abs=1e-12)


def test_masked_labels_do_not_count():
    out, wanted = logits(), labels()
    part = wanted.clone()
    part[:, :3] = -100
    whole, cut = score_tokens(out, wanted), score_tokens(out, part)
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a.log_probs[2:], b.log_probs, rtol=0, atol=0)
        assert torch.equal(a.correct[2:], b.correct)


def test_the_first_choice_is_the_largest_logit():
    out = logits()
    wanted = torch.cat([torch.zeros(3, 1, dtype=torch.long), out.argmax(-1)[:, :-1]], 1)
    assert all(s.correct.all() for s in score_tokens(out, wanted))
    assert not any(s.correct.any() for s in score_tokens(out, (wanted + 1) % 11))


def test_mean_and_deviation_are_those_of_tokens_drawn_from_the_model():
    out, wanted = logits(rows=1, tokens=2), labels(rows=1, tokens=2)
    (score,) = score_tokens(out, wanted)
    p = out[0, 0].softmax(0)
    rng = torch.Generator().manual_seed(3)
    draws = p.log()[torch.multinomial(p, 400_000, replacement=True, generator=rng)]
    error = float(score.deviation) / 400_000**0.5
    assert abs(float(draws.mean() - score.mean)) < 4 * error
    assert float(draws.std()) == pytest.approx(float(score.deviation), rel=0.01)


def test_a_token_without_any_probability_leaves_mean_and_deviation_finite():
    out = torch.tensor([[[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]]])
    (score,) = score_tokens(out, torch.tensor([[0, 1]]))
    assert score.mean.item() == pytest.approx(-math.log(2))
    assert score.deviation.item() == pytest.approx(0, abs=1e-6)


def test_broken_logits_stay_visible():
    (score,) = score_tokens(torch.full((1, 2, 3), math.nan), torch.tensor([[0, 1]]))
    assert score.log_probs.isnan().all()
    assert score.mean.isnan().all()
    assert score.deviation.isnan().all()


def test_a_sequence_without_labels_has_no_mean():
    out, wanted = logits(), labels()
    wanted[1] = -100
    assert mean_log_probs(score_tokens(out, wanted)).isnan().tolist() == [False, True, False]


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"need labels \(B, T\)"):
        score_tokens(logits(), labels(tokens=6))
