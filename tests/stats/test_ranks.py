"""Rank statistics against scikit-learn and plain loops."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from unlearnkit.stats.roc import StreamingRoc, auc, auc_rows, tpr_at_fpr


def scores(m, n, shift=1.0, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(m + n, generator=draw, dtype=torch.float64).to(dtype)
    return z[:m] + shift, z[m:]


def test_the_auc_of_each_row_is_that_of_the_row_alone():
    draw = torch.Generator().manual_seed(0)
    ins = torch.randint(0, 6, (30, 7), generator=draw).double()
    outs = torch.randint(0, 5, (30, 9), generator=draw).double()
    ins[3, 2], outs[3, 4], outs[5, 1] = math.inf, math.inf, -math.inf
    kept_in = torch.rand(30, 7, generator=draw) < 0.6
    kept_out = torch.rand(30, 9, generator=draw) < 0.6
    kept_in[8], kept_out[9] = False, False
    kept_in[3], kept_out[3], kept_out[3, :3] = True, True, False
    got = auc_rows(ins, outs, kept_in, kept_out)
    want = [auc(ins[r][kept_in[r]], outs[r][kept_out[r]]) for r in range(30)]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert bool(got[[8, 9]].isnan().all())
    whole = [auc(a, b) for a, b in zip(ins, outs, strict=True)]
    np.testing.assert_allclose(auc_rows(ins, outs), whole, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_tally_of_pieces_is_the_auc_of_all(size):
    ins, outs = (s * size for s in scores(3000, 5000))
    tally = StreamingRoc()
    for a, b in zip(ins.chunk(7), outs.chunk(7), strict=True):
        tally.add(a, b)
    labels = np.r_[np.ones(3000), np.zeros(5000)]
    want = roc_auc_score(labels, torch.cat([ins, outs]).numpy())
    assert tally.auc == pytest.approx(want, abs=2e-5)
    assert tally.tpr_at_fpr(0.01) == pytest.approx(tpr_at_fpr(ins, outs, 0.01), abs=2e-3)


def test_a_tally_takes_ties_signs_and_infinite_scores():
    ins = torch.tensor([0.0, -0.0, math.inf, -2.0, 3.0])
    outs = torch.tensor([-0.0, 0.0, math.inf, -math.inf, -1.0, 3.0])
    tally = StreamingRoc()
    tally.add(ins, outs)
    assert tally.auc == pytest.approx(auc(ins, outs), abs=1e-12)


def test_a_tally_leaves_out_what_is_no_number():
    tally = StreamingRoc()
    tally.add(torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 0.0]))
    assert tally.auc == 1.0


def test_a_tally_without_enough_others_has_no_rate():
    tally = StreamingRoc()
    tally.add(torch.arange(5.0), torch.arange(999.0))
    assert math.isnan(tally.tpr_at_fpr(0.01))
    assert math.isnan(StreamingRoc().auc)
    tally.add(torch.empty(0), torch.arange(1.0))
    assert tally.tpr_at_fpr(0.01) == 0.0
