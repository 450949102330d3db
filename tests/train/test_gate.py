"""What the gate lets pass, against probabilities worked out by hand."""

import math

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.train.data_free.class_gate import ClassGate, passes_gate, suppress_classes


def logits(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def made(kind="sample", gone=(0,), threshold=0.01, patience=3):
    return ClassGate(kind, gone, threshold=threshold, margin=0.0, patience=patience, who="x")


def test_a_row_that_is_surely_of_a_forgotten_class_is_held_back():
    assert not passes_gate(torch.tensor([[10.0, 0.0, 0.0]]), (0,), 0.01).item()


@pytest.mark.parametrize(("p", "passes"), [(0.25, True), (0.2500001, False), (0.2499999, True)])
def test_a_row_at_the_threshold_passes(p, passes):
    assert passes_gate(logits(p, 1 - p), (0,), 0.25).item() is passes


@pytest.mark.parametrize(("p", "q", "passes"), [(0.1, 0.1, True), (0.1, 0.3, False)])
def test_every_forgotten_class_must_be_below_the_threshold(p, q, passes):
    assert passes_gate(logits(p, q, 1 - p - q), (0, 1), 0.2).item() is passes


def test_without_a_forgotten_class_all_rows_pass():
    out = 10 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert passes_gate(out, (), 0.0).all()
    assert torch.equal(suppress_classes(out, (), 1.0), out)


def test_lowered_logits_lie_a_margin_below_the_smallest_and_others_stay():
    out = torch.tensor([[3.0, -1.0, 2.0], [0.0, 5.0, 4.0]])
    want = torch.tensor([[-1.5, -1.0, 2.0], [-0.5, 5.0, 4.0]])
    torch.testing.assert_close(suppress_classes(out, (0,), 0.5), want)


@pytest.mark.parametrize(
    ("kind", "keeps", "lowers"),
    [("sample", False, False), ("logit", True, True), ("both", False, True)],
)
def test_each_kind_drops_rows_or_lowers_logits_or_both(kind, keeps, lowers):
    out = torch.tensor([[10.0, 0.0, 1.0]])
    gate = made(kind)
    assert gate.keep(out).item() is keeps
    assert (gate.goal(out).argmax().item() != 0) is lowers


def test_the_pass_rate_is_of_the_rows_since_it_was_last_asked():
    gate, out = made(), torch.tensor([[10.0, 0.0], [0.0, 10.0]])
    gate.count(out, gate.keep(out))
    assert gate.rate() == 0.5
    gate.count(out[1:], gate.keep(out[1:]))
    assert gate.rate() == 1.0
    assert math.isclose(gate.whole_rate(), 2 / 3, rel_tol=1e-6)
    assert gate.classes.tolist() == [1, 2]


def test_a_gate_that_never_opens_is_told_with_the_histogram():
    gate, out = made(), torch.tensor([[10.0, 0.0]] * 4 + [[-1.0, 1.0]])
    assert not gate.stuck(out, last=False)
    assert not gate.stuck(out, last=False)
    with pytest.raises(InputError, match=r"3 batches .* 0\.1 to 0\.5: 3, .* 0\.9 to 1: 12; raise"):
        gate.stuck(out, last=False)


def test_a_gate_that_once_opened_asks_for_other_inputs_first():
    gate, out = made(patience=1), torch.tensor([[0.0, 10.0]])
    gate.count(out, gate.keep(out))
    assert gate.stuck(-out, last=False)
    with pytest.raises(InputError, match="held back"):
        gate.stuck(-out, last=True)
