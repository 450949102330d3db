"""Distances of predictions and attacks on real targets, beside SciPy, scikit-learn and loops."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, wasserstein_distance
from sklearn.svm import SVC
from torch import nn

from unlearnkit.attacks.quantile_attack import (
    AttackRows,
    quantile_threshold_attack,
    scaled_residual_attack,
)
from unlearnkit.catalog import metrics
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics import membership
from unlearnkit.stats.roc import auc
from unlearnkit.tasks.regression import Regression

SPLITS = ("forget", "retain", "test")


def score(name, e):
    return metrics()[name](e)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("width", [1, 3])
def test_wasserstein_is_that_of_scipy_for_each_target_and_oracle(parts, stored, split, width):
    outputs, targets, kind = parts(task="regression", width=width, oracles=3)
    s = Split(split)
    each = [
        wasserstein_distance(outputs["unlearned"][s][:, j], outputs[f"oracle/{k}"][s][:, j])
        for k in range(3)
        for j in range(width)
    ]
    got = score(f"wasserstein_{split}", stored(outputs, targets, kind)).value
    assert got == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize("name", ["wasserstein_forget", "paired_difference_forget"])
@pytest.mark.parametrize("shift", [0.0, 0.7, -2.0])
def test_a_shift_of_all_predictions_is_a_distance_of_its_size(parts, stored, name, shift):
    outputs, targets, kind = parts(task="regression", width=1, oracles=1)
    outputs["unlearned"] = {s: out.double() + shift for s, out in outputs["oracle/0"].items()}
    outputs["oracle/0"] = {s: out.double() for s, out in outputs["oracle/0"].items()}
    got = score(name, stored(outputs, targets, kind)).value
    assert got == pytest.approx(abs(shift), rel=1e-12, abs=1e-15)


def test_exchanged_predictions_are_at_no_wasserstein_distance_but_apart_row_by_row(parts, stored):
    outputs, targets, kind = parts(task="regression", width=1, oracles=1)
    outputs["unlearned"] = {s: out.flip(0) for s, out in outputs["oracle/0"].items()}
    e = stored(outputs, targets, kind)
    assert score("wasserstein_forget", e).value == pytest.approx(0, abs=1e-12)
    pair = outputs["unlearned"][Split.FORGET] - outputs["oracle/0"][Split.FORGET]
    assert score("paired_difference_forget", e).value == pytest.approx(pair.abs().mean().item())


@pytest.mark.parametrize("seed", range(3))
def test_the_paired_difference_is_never_below_the_wasserstein_distance(make, seed):
    e = make(task="regression", width=2, oracles=3, seed=seed)
    for split in SPLITS:
        pair = score(f"paired_difference_{split}", e)
        assert pair.value >= score(f"wasserstein_{split}", e).value
        assert pair.rows.shape == (len(e.views[Split(split)]),)


@pytest.mark.parametrize("name", ["wasserstein", "paired_difference"])
def test_both_are_distances_with_the_oracles_own_as_floor(make, name):
    m = metrics()[f"{name}_forget"]
    e = make(task="regression", width=1, oracles=3)
    assert m.distance
    pairs = [(0, 1), (0, 2)]
    f = {k: e.predictions(ModelRole.ORACLE, Split.FORGET, k) for k in range(3)}
    if name == "wasserstein":
        f = {k: v.sort(0).values for k, v in f.items()}
    want = np.mean([(f[a] - f[b]).abs().mean().item() for a, b in pairs])
    assert m(e.with_candidate(ModelRole.ORACLE, 0)).value == pytest.approx(want, rel=1e-12)


def test_of_quantiles_the_middle_ones_are_compared(parts, stored):
    task = Regression(2, loss="pinball", quantiles=(0.1, 0.5, 0.9))
    sizes = dict.fromkeys((Split.FORGET, Split.HELD_OUT, Split.RETAIN, Split.TEST), 40)
    outputs, targets, _ = parts(task="regression", width=6, oracles=1, sizes=sizes)
    targets = {s: y[:, :2] for s, y in targets.items()}
    middle = [{s: o[:, [1, 4]] for s, o in outputs[n].items()} for n in ("unlearned", "oracle/0")]
    few = stored(
        {"unlearned": middle[0], "oracle/0": middle[1], "original": middle[0]},
        targets,
        Regression(2),
    )
    e = stored(outputs, targets, task)
    for name in ("wasserstein_forget", "paired_difference_test", "matched_likelihood_ratio_auc"):
        assert score(name, e).value == pytest.approx(score(name, few).value, rel=1e-9)


def test_classes_have_no_predictions_in_target_units(make):
    with pytest.raises(UnsupportedError, match="targets of classification are no numbers"):
        make().predictions(ModelRole.UNLEARNED, Split.FORGET)


UNSEEN = (Split.RETAIN, Split.HELD_OUT, Split.TEST)


def like_members(rows, *, forget=300, unseen=300, seed=0, width=1):
    """Return stored outputs whose residuals are drawn alike on all splits, but as ``rows`` says."""
    rng = torch.Generator().manual_seed(seed)
    sizes = {Split.FORGET: forget} | dict.fromkeys(UNSEEN, unseen)
    y = {s: torch.randn(n, width, generator=rng).double() for s, n in sizes.items()}
    names = ["original", "unlearned", *(f"oracle/{k}" for k in range(4))]
    outputs = {
        n: {
            s: t + rows(s, n) * torch.randn(t.shape, generator=rng) * (1 + t[:, :1].abs())
            for s, t in y.items()
        }
        for n in names
    }
    return outputs, y, Regression(width)


ATTACKS = ["margin_auc", "matched_margin_auc", "matched_likelihood_ratio_auc"]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("seed", range(3))
def test_errors_that_are_drawn_alike_are_not_told_apart(stored, name, seed):
    e = stored(*like_members(lambda s, n: 1.0, seed=seed))
    found = score(name, e)
    error = math.sqrt((300 + 300 + 1) / (12 * 300 * 300))
    assert abs(found.value - 0.5) < 3 * error * 1.15  # five neighbours cost a little precision
    # Half the interval is about two standard errors.
    assert 3 * error < found.interval[1] - found.interval[0] < 5 * error


@pytest.mark.parametrize("name", ATTACKS)
def test_errors_that_are_smaller_on_forget_rows_are(stored, name):
    small = {(Split.FORGET, "unlearned"): 0.3}
    e = stored(*like_members(lambda s, n: small.get((s, n), 1.0)))
    assert score(name, e).interval[0] > 0.6


@pytest.mark.parametrize("width", [1, 2])
def test_the_likelihood_ratio_is_that_of_densities_and_orders_rows_as_rmia_does(stored, width):
    outputs, y, task = like_members(lambda s, n: 1.0, forget=40, unseen=60, width=width)
    y = {s: torch.zeros_like(t) for s, t in y.items()}
    left = np.stack([outputs[f"oracle/{k}"][Split.HELD_OUT].numpy() for k in range(4)])
    scale = np.sqrt((left**2).mean((0, 1)))

    def ratio(split):
        p = {n: norm.pdf(0, loc=o[split].numpy(), scale=scale).prod(1) for n, o in outputs.items()}
        return p["unlearned"] / np.mean([p[f"oracle/{k}"] for k in range(4)], axis=0)

    ins, outs = ratio(Split.FORGET), ratio(Split.HELD_OUT)
    got = score("matched_likelihood_ratio_auc", stored(outputs, y, task))
    assert got.value == pytest.approx(auc(torch.tensor(ins), torch.tensor(outs)), rel=1e-9)
    population = ratio(Split.TEST)
    rmia = [torch.tensor([(r / population >= 1).mean() for r in side]) for side in (ins, outs)]
    assert auc(*rmia) == pytest.approx(got.value, abs=1 / 60)


def test_without_residuals_there_is_no_scale(stored):
    outputs, y, task = like_members(lambda s, n: 0.0)
    found = score("matched_likelihood_ratio_auc", stored(outputs, y, task))
    assert math.isnan(found.value)
    assert "no residual" in found.note


def test_forget_rows_that_no_never_seen_row_resembles_are_told(stored):
    outputs, y, task = like_members(lambda s, n: 1.0)
    y[Split.FORGET] += 100
    found = score("matched_margin_auc", stored(outputs, y, task))
    assert math.isnan(found.value)
    assert "0 forget rows and 0 never-seen rows have targets within 0.25" in found.note


@pytest.mark.parametrize("seed", range(3))
def test_the_svm_on_the_error_is_the_published_one(parts, stored, seed):
    sizes = {Split.FORGET: 33, Split.RETAIN: 70, Split.TEST: 50}
    outputs, y, kind = parts(task="regression", width=1, sizes=sizes, seed=seed)
    e = stored(outputs, y, kind)
    loss = {s: (outputs["unlearned"][s] - t).abs().numpy() for s, t in y.items()}
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    features = np.concatenate([loss[Split.RETAIN][:50], loss[Split.TEST]])
    machine.fit(features, np.concatenate([np.ones(50), np.zeros(50)]))
    found = score("svm_l1_member_share", e)
    assert found.value == machine.predict(loss[Split.FORGET]).mean()
    assert metrics()["svm_l1_member_share"].path == "compat"


def test_the_published_svm_sees_no_more_rows_than_it_did(parts, stored, monkeypatch):
    sizes = {Split.FORGET: 9, Split.RETAIN: 30, Split.TEST: 30}
    outputs, y, kind = parts(task="regression", width=1, sizes=sizes)
    monkeypatch.setattr(membership, "SVM_EACH", 10)
    first = score("svm_l1_member_share", stored(outputs, y, kind)).value
    cut = {s: slice(None, 10 if s is not Split.FORGET else None) for s in sizes}
    outputs = {n: {s: o[cut[s]] for s, o in outs.items()} for n, outs in outputs.items()}
    y = {s: t[cut[s]] for s, t in y.items()}
    assert score("svm_l1_member_share", stored(outputs, y, kind)).value == first


def linear(width=4, targets=1, count=80):
    rng = torch.Generator().manual_seed(0)

    def view(n):
        x = torch.randn(n, width, generator=rng).double()
        return View.all(TensorData(x, torch.randn(n, targets, generator=rng).double()))

    views = {Split.FORGET: view(30), Split.HELD_OUT: view(count)}
    model = nn.Linear(width, targets).double()
    with torch.no_grad():
        model.weight.fill_(0.3)
        model.bias.zero_()
    return Evidence({"unlearned": model}, views, Regression(targets), Runtime())


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("quantile_auc", lambda *a: quantile_threshold_attack(*a, fpr=0.1)),
        ("scaled_residual_auc", scaled_residual_attack),
    ],
)
@pytest.mark.parametrize("width", [4, 300])
def test_what_is_expected_of_a_row_comes_from_its_inputs_and_target(name, fn, width):
    e = linear(width)
    known = []
    for split in (Split.FORGET, Split.HELD_OUT):
        view = e.views[split]
        about = torch.cat([view.data.x, view.y], 1) if width == 4 else view.y
        known.append(AttackRows(e.margins(ModelRole.UNLEARNED, split), about))
    want = fn(*known, e.rt.rng("conditional/halves"))
    got = score(name, e)
    assert got.value == want.auc
    assert torch.equal(got.rows, want.members)


@pytest.mark.parametrize("name", ["quantile_auc", "scaled_residual_auc"])
def test_too_few_never_seen_rows_and_stored_outputs_are_told(make, name):
    few = score(name, linear(count=30))
    assert math.isnan(few.value)
    assert "40 never-seen rows" in few.note
    stored = score(name, make(task="regression"))
    assert math.isnan(stored.value)
    assert "needs the inputs" in stored.note
