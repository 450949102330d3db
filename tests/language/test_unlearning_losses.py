"""Unlearning losses against their formulas, written as loops over NumPy numbers."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from unlearnkit.language import unlearning_losses as losses

B, T, V = 3, 5, 7
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def drawn(seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, V, generator=rng, dtype=torch.float64) * 2
    reference = torch.randn(B, T, V, generator=rng, dtype=torch.float64) * 2
    labels = torch.randint(V, (B, T), generator=rng)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1]]).bool()
    return logits, labels, mask, reference


def nll(logits, labels, mask):
    """Return -log p of the labels of each sequence, as lists."""
    z, y = logits.detach().numpy(), labels.numpy()
    return [[-log_softmax(z[b, t])[y[b, t]] for t in range(T) if mask[b, t]] for b in range(len(z))]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def reference_sums(reference, labels, mask):
    return torch.tensor([-sum(s) for s in nll(reference, labels, mask)], dtype=torch.float64)


def agree(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), **CLOSE)


LOGITS, LABELS, MASK, REFERENCE = drawn()
OURS, THEIRS = nll(LOGITS, LABELS, MASK), nll(REFERENCE, LABELS, MASK)
KEPT = [(b, t) for b in range(B) for t in range(T) if MASK[b, t]]
REF = reference_sums(REFERENCE, LABELS, MASK)


def test_sequence_losses_are_sum_mean_and_token_mean():
    agree(losses.sequence_nll(LOGITS, LABELS, MASK, "seq_sum"), [sum(s) for s in OURS])
    agree(losses.sequence_nll(LOGITS, LABELS, MASK, "seq_mean"), [np.mean(s) for s in OURS])
    agree(losses.sequence_nll(LOGITS, LABELS, MASK, "token"), np.mean(np.concatenate(OURS)))


def test_ascent_is_minus_the_token_mean():
    agree(losses.gradient_ascent(LOGITS, LABELS, MASK), -np.mean(np.concatenate(OURS)))


def test_kl_to_the_reference():
    z, r = LOGITS.numpy(), REFERENCE.numpy()
    want = [
        (softmax(r[b, t]) * (log_softmax(r[b, t]) - log_softmax(z[b, t]))).sum() for b, t in KEPT
    ]
    agree(losses.kl_to_reference(LOGITS, REFERENCE, MASK), np.mean(want))


def test_npo():
    ratios = [sum(a) - sum(b) for a, b in zip(OURS, THEIRS, strict=True)]
    want = np.mean([-2 / 0.3 * log_sigmoid(0.3 * r) for r in ratios])
    agree(losses.npo(LOGITS, LABELS, MASK, REF, beta=0.3), want)


def test_simnpo():
    want = np.mean([-2 / 2.5 * log_sigmoid(2.5 * (np.mean(s) - 0.4)) for s in OURS])
    agree(losses.simnpo(LOGITS, LABELS, MASK, beta=2.5, delta=0.4), want)


def test_preference():
    wanted, unwanted, kept, lost = torch.randn(
        4, B, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    gain = ((wanted - kept) - (unwanted - lost)).tolist()
    want = np.mean([-2 / 0.1 * log_sigmoid(0.1 * g) for g in gain])
    agree(losses.preference(wanted, unwanted, kept, lost), want)


def test_undial():
    z, r, y = LOGITS.numpy(), REFERENCE.numpy().copy(), LABELS.numpy()
    want = []
    for b, t in KEPT:
        row = r[b, t].copy()
        row[y[b, t]] -= 10.0
        want.append(-(softmax(row) * log_softmax(z[b, t])).sum())
    agree(losses.undial(LOGITS, LABELS, MASK, REFERENCE), np.mean(want))


def test_wga_and_satimp():
    flat = np.concatenate(OURS)
    p = np.exp(-flat)
    agree(losses.wga(LOGITS, LABELS, MASK, beta=0.7), -np.mean(p**0.7 * flat))
    agree(losses.satimp(LOGITS, LABELS, MASK), -np.mean(p**5 * (1 - p) * flat))


def test_ceu_leaves_out_the_label_and_each_first_label():
    z, y = LOGITS.numpy(), LABELS.numpy()
    firsts = {(0, 0), (1, 1), (2, 2)}
    want = []
    for b, t in KEPT:
        if (b, t) not in firsts:
            row = z[b, t].copy()
            row[y[b, t]] = -np.inf
            want.append(-(softmax(row) * log_softmax(z[b, t])).sum())
    agree(losses.ceu(LOGITS, LABELS, MASK), np.mean(want))


def test_ceu_keeps_the_only_label_of_a_sequence():
    only = torch.zeros(1, T, dtype=torch.bool)
    only[0, 2] = True
    assert float(losses.ceu(LOGITS[:1], LABELS[:1], only)) > 0


def test_logit_flatness():
    z = LOGITS.numpy()
    want = np.mean([(z[b, t].max() - z[b, t].mean()) ** 2 for b, t in KEPT])
    agree(losses.logit_flatness(LOGITS, MASK), want)
    assert float(losses.logit_flatness(torch.ones(B, T, V), MASK)) == 0.0


def grad(loss, logits):
    z = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z), z)
    return slope


def sum_ascent(z):
    return -losses.sequence_nll(z, LABELS, MASK, "seq_sum").mean()


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_npo_at_the_reference_has_the_value_of_log_2_and_the_gradient_of_ascent(beta):
    own = -losses.sequence_nll(LOGITS, LABELS, MASK, "seq_sum")
    agree(losses.npo(LOGITS, LABELS, MASK, own, beta=beta), 2 / beta * math.log(2))
    got = grad(lambda z: losses.npo(z, LABELS, MASK, own, beta=beta), LOGITS)
    torch.testing.assert_close(got, grad(sum_ascent, LOGITS), **CLOSE)


def test_npo_at_a_small_beta_has_the_gradient_of_ascent_everywhere():
    got = grad(lambda z: losses.npo(z, LABELS, MASK, REF, beta=1e-4), LOGITS)
    torch.testing.assert_close(got, grad(sum_ascent, LOGITS), rtol=1e-3, atol=1e-12)


def test_npo_s_gradient_is_ascent_s_times_its_gate():
    one = [t[:1] for t in (LOGITS, LABELS, MASK, REF)]
    ours, theirs = math.exp(-0.5 * sum(OURS[0])), math.exp(-0.5 * sum(THEIRS[0]))
    got = grad(lambda z: losses.npo(z, *one[1:], beta=0.5), one[0])
    plain = grad(lambda z: -losses.sequence_nll(z, one[1], one[2], "seq_sum").mean(), one[0])
    torch.testing.assert_close(got, plain * 2 * ours / (ours + theirs), **CLOSE)


def test_simnpo_is_npo_by_length_against_a_uniform_reference():
    counts = MASK.sum(1)
    got = losses.simnpo(LOGITS, LABELS, MASK, beta=2.0, delta=math.log(V))
    uniform = nll(torch.zeros(B, T, V, dtype=torch.float64), LABELS, MASK)
    gaps = [np.mean(a) - sum(u) / int(c) for a, u, c in zip(OURS, uniform, counts, strict=True)]
    agree(got, np.mean([-2 / 2.0 * log_sigmoid(2.0 * g) for g in gaps]))


def test_the_loss_of_activations_is_additive_over_sequences():
    # 10 and 20 over 5 and 20 places: averaged over all pairs they would give 1.875
    hidden, mask = torch.zeros(2, 20, 1), torch.zeros(2, 20, dtype=torch.bool)
    mask[0, :5], mask[1] = True, True
    hidden[0, :5], hidden[1] = math.sqrt(2.0), 1.0
    both = losses.squared_distance(hidden, torch.zeros(1), mask)
    singles = [losses.squared_distance(hidden[[b]], torch.zeros(1), mask[[b]]) for b in (0, 1)]
    torch.testing.assert_close(both, torch.stack(singles).mean())
    torch.testing.assert_close(both, torch.tensor(1.5))


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (losses.wga, lambda p: p),
        (losses.satimp, lambda p: p**5 * (1 - p)),
    ],
)
def test_weights_of_labels_carry_no_gradient(loss, weight):
    fixed = torch.zeros(B, T, dtype=torch.float64)
    for (b, t), each in zip(KEPT, np.concatenate(OURS), strict=True):
        fixed[b, t] = weight(math.exp(-each))
    got = grad(lambda z: loss(z, LABELS, MASK), LOGITS)
    by_hand = lambda z: -(fixed * losses.token_nll(z, LABELS, MASK)).sum() / len(KEPT)  # noqa: E731
    torch.testing.assert_close(got, grad(by_hand, LOGITS), **CLOSE)


EVERY = {
    "ascent": losses.gradient_ascent,
    "kl": lambda z, y, m: losses.kl_to_reference(z, REFERENCE, m),
    "npo": lambda z, y, m: losses.npo(z, y, m, REF),
    "simnpo": losses.simnpo,
    "undial": lambda z, y, m: losses.undial(z, y, m, REFERENCE),
    "wga": losses.wga,
    "satimp": losses.satimp,
    "ceu": losses.ceu,
    "flatness": lambda z, y, m: losses.logit_flatness(z, m),
    "rmu": lambda z, y, m: losses.squared_distance(z, torch.ones(V), m),
}


@pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
def test_what_is_masked_changes_nothing(loss):
    labels = torch.where(MASK, LABELS, -100)
    logits = torch.where(MASK[..., None], LOGITS, 99.0)
    torch.testing.assert_close(loss(logits, labels, MASK), loss(LOGITS, LABELS, MASK), **CLOSE)
    slope = grad(lambda z: loss(z, LABELS, MASK), LOGITS)
    assert not slope[~MASK].any()
    assert slope[MASK].abs().sum() > 0


@pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
def test_extreme_logits_stay_finite(loss):
    for far in (1e4, -1e4):
        logits = LOGITS.float().scatter(-1, LABELS[..., None], far)
        slope = grad(lambda z: loss(z, LABELS, MASK), logits)
        assert torch.isfinite(loss(logits, LABELS, MASK))
        assert torch.isfinite(slope).all()
