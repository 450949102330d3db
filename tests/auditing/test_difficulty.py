"""How hard a forget set is, as an audit shows it: against numbers made from the models by hand."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

import unlearnkit as uk
from unlearnkit.auditing.difficulty_summary import difficulty
from unlearnkit.cases.hard_forget_sets import memorised
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.curvature import curvature
from unlearnkit.difficulty.holdout_retraining import hold_out
from unlearnkit.difficulty.self_influence import self_influence
from unlearnkit.report.schema import Difficulty
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

CASE = toy_case(Classification(3))
PARTS = CASE.partition(Rows(range(12)))
VIEWS = {Split.FORGET: PARTS.forget, Split.RETAIN: PARTS.retain}


def models(names, width=3, head=None):
    found = {}
    for seed, name in enumerate(names):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            last = torch.nn.Linear(16, width) if head is None else head()
            found[name] = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), last)
    return found


def evidence(names=("original", "unlearned"), views=VIEWS, **more):
    return Evidence(models(names, **more), views, CASE.task, Runtime())


def own(model, view):
    p = softmax(model(view.data.x[view.rows]).detach().double().numpy(), 1)
    return p[np.arange(len(view)), view.y.numpy()].mean()


def test_confidence_is_the_mean_probability_of_the_labels():
    e = evidence()
    found, model = difficulty(e), models(["original"])["original"]
    assert found.confidence == pytest.approx(own(model, PARTS.forget), rel=1e-5)
    assert found.confidence_retained == pytest.approx(own(model, PARTS.retain), rel=1e-5)
    assert found.memorised is None


def test_what_oracles_lack_of_that_confidence_was_memorised():
    names = ("original", "unlearned", "oracle/0", "oracle/1")
    nets = models(names)
    without = np.mean([own(nets[f"oracle/{k}"], PARTS.forget) for k in range(2)])
    want = own(nets["original"], PARTS.forget) - without
    assert difficulty(evidence(names)).memorised == pytest.approx(want, rel=1e-4)


def test_entanglement_is_taken_of_the_last_layers_inputs():
    net = models(["original"])["original"]
    f, r = (net[:2](v.data.x[v.rows]).detach().double().numpy() for v in VIEWS.values())
    middle = np.concatenate([f, r]).mean(0)
    within = sum(((x - x.mean(0)) ** 2).sum(1).mean() for x in (f, r))
    between = sum(((x.mean(0) - middle) ** 2).sum() for x in (f, r)) / 2
    assert difficulty(evidence()).entanglement == pytest.approx(within / between, rel=1e-5)


def test_rows_at_the_boundary_flip_sooner_than_others():
    net = models(["original"])["original"]
    top = net(CASE.train.x).detach().topk(2, 1).values
    order = (top[:, 0] - top[:, 1]).argsort()
    near = CASE.partition(Rows(order[:12].tolist()))
    views = {Split.FORGET: near.forget, Split.RETAIN: near.retain}
    found = difficulty(evidence(views=views))
    assert found.flip < found.flip_retained / 2


def test_a_last_layer_that_is_too_wide_leaves_flips_out(monkeypatch):
    monkeypatch.setattr("unlearnkit.auditing.difficulty_summary.WORK", 100)
    found = difficulty(evidence())
    assert found.entanglement is not None
    assert found.flip is None


def test_a_last_layer_that_is_not_linear_leaves_flips_out():
    def head():
        return torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.LayerNorm(3))

    found = difficulty(evidence(head=head))
    assert found.entanglement is not None
    assert found.flip is None


def test_without_retained_rows_or_classes_little_is_told():
    alone = difficulty(evidence(views={Split.FORGET: PARTS.forget}))
    assert alone.confidence is not None
    assert alone == Difficulty(confidence=alone.confidence)
    case = toy_case(Regression())
    parts = case.partition(Rows(range(12)))
    views = {Split.FORGET: parts.forget, Split.RETAIN: parts.retain}
    nets = {n: case.fresh() for n in ("original", "unlearned")}
    found = difficulty(Evidence(nets, views, case.task, Runtime()))
    assert found.confidence is None
    assert found.entanglement > 0


def test_a_report_shows_it_and_keeps_it(tmp_path):
    done = uk.unlearn(models(["original"])["original"], CASE, Rows(range(12)), "finetune")
    report = uk.audit(done)
    text = report.full()
    for words in (
        "Confidence of the original",
        "Memorisation AUC",
        "Entanglement",
        "Least disagree metric",
    ):
        assert words in text
    assert (
        uk.Report.load(report.save(tmp_path / "r.json")).request_summary == report.request_summary
    )
    page = report.save(tmp_path / "r.html").read_text("utf-8")
    assert "Least disagree metric" in page


def trained(seed=3):
    return uk.train_original(CASE, seed=seed).model


def test_proxies_say_how_often_a_forget_row_scores_above_a_retained_one():
    model, rt = trained(), Runtime()
    views = {**VIEWS, Split.TEST: View.all(CASE.test)}
    e = Evidence({"original": model, "unlearned": model}, views, CASE.task, rt, recipe=CASE.recipe)
    go, stay = (v.data.pick(v.rows) for v in (PARTS.forget, PARTS.retain))
    x, y = (torch.cat([getattr(go, k), getattr(stay, k)]) for k in ("x", "y"))
    whole = View.all(TensorData(x, y))
    scores = {
        "curvature": curvature(model, whole, CASE.task, rt),
        "hold_out": hold_out(model, whole, views[Split.TEST], CASE.task, CASE.recipe, rt),
        "influence": self_influence(model[:2](x).detach(), model(x).log_softmax(1).detach(), y),
    }
    want = {k: float((s[:12, None] > s[12:]).double().mean()) for k, s in scores.items()}
    assert difficulty(e).harder == pytest.approx(want, abs=1e-9)


def test_parts_of_data_of_their_own_have_the_same_proxies():
    model, done = trained(), []
    go, stay = (
        TensorData(*(t[v.rows] for t in (CASE.train.x, CASE.train.y)))
        for v in (PARTS.forget, PARTS.retain)
    )
    for forget, retain in ((PARTS.forget, PARTS.retain), (View.all(go), View.all(stay))):
        views = {Split.FORGET: forget, Split.RETAIN: retain, Split.TEST: View.all(CASE.test)}
        nets = {"original": model, "unlearned": model}
        done.append(difficulty(Evidence(nets, views, CASE.task, Runtime(), recipe=CASE.recipe)))
    assert done[0].harder == pytest.approx(done[1].harder)


def test_rows_that_training_learned_last_look_known_by_heart_by_every_proxy():
    wrong = (CASE.train.y + (torch.arange(60) < 6)) % 3
    recipe = CASE.recipe.model_copy(update={"epochs": 60, "lr": 0.2})
    case = CASE.replace(train=CASE.train.with_targets(wrong), recipe=recipe)
    model = uk.train_original(case).model
    for at, side in (("top", 1), ("bottom", -1)):
        done = uk.unlearn(model, case, memorised(case, 0.1, at).request, "finetune")
        found = uk.audit(done).request_summary.difficulty.harder
        assert set(found) == {"curvature", "hold_out", "influence"}
        assert min(side * (share - 0.5) for share in found.values()) > 0.15, found


def test_what_a_proxy_needs_and_is_not_there_leaves_it_out():
    assert set(difficulty(evidence()).harder) == {"curvature", "influence"}
    case = toy_case(Regression())
    parts = case.partition(Rows(range(12)))
    views = {Split.FORGET: parts.forget, Split.RETAIN: parts.retain}
    nets = {n: case.fresh() for n in ("original", "unlearned")}
    found = difficulty(Evidence(nets, views, case.task, Runtime()))
    assert set(found.harder) == {"curvature"}
