"""Three kinds of evidence, each under its own heading; none decides another."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import unlearnkit as uk
from tests.report.report_samples import full
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.linear import (
    RemovableLogisticRegression,
    RemovableMultinomialRegression,
    RemovablePoissonRegressor,
    RemovableRidge,
    RemovableSmoothHinge,
    RemovalBudget,
    linear_case,
    linear_network,
)
from unlearnkit.sisa import ShardedClassifier, sharded_case
from unlearnkit.testing import toy_case

BUDGET = RemovalBudget(
    epsilon=1.0, delta=1e-4, sigma=1.0, perturbation="objective", noise=0, row_norm=2.0,
    rows_outside="rescale",
)  # fmt: skip
GO = list(range(12))


def tumours():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x) / 30**0.5
    return x[:300], y[:300], x[300:], y[300:]


def fitted(noise=0, **more):
    settings = {"alpha": 5.0, "penalize_intercept": True, "budget": BUDGET} | more
    if settings["budget"] is not None:
        settings["budget"] = BUDGET.model_copy(update={"noise": noise})
    return RemovableLogisticRegression(**settings)


@pytest.fixture(scope="module")
def certified():
    """A linear model with a certificate, audited with it and without it."""
    x, y, x_test, y_test = tumours()
    model = fitted().fit(x, y)
    before = linear_network(model)
    certificate = model.unlearn(rows=GO)
    case = linear_case(fitted, train=(x, y), test=(x_test, y_test), name="tumours")
    truth = uk.oracle(case, uk.Rows(GO), seeds=3)
    given = {"original": before, "case": case, "request": uk.Rows(GO), "oracle": truth}
    after = linear_network(model)
    return (
        uk.audit(after, **given, certificate=certificate),
        uk.audit(after, **given),
        certificate,
        given,
        after,
    )


def test_a_certificate_and_an_audit_stand_side_by_side(certified):
    report, _, certificate, *_ = certified
    assert [s.kind for s in report.evidence] == ["certified", "empirical"]
    proof, measured = report.evidence
    assert proof.statement == certificate.guarantee
    assert proof.assumptions == certificate.assumptions
    assert proof.numbers["epsilon"] == certificate.epsilon
    assert proof.numbers["budget spent"] == certificate.budget_spent
    assert measured.statement == report.sentence
    assert measured.assumptions == report.limits
    assert measured.source == "audit, reference tier, 3 retrained models"


def test_a_certificate_changes_nothing_that_the_audit_says(certified):
    ours, plain, *_ = certified
    skipped = {"evidence", "provenance", "cost", "recipe", "summary"}
    kept = json.loads(ours.model_dump_json(exclude=skipped))
    assert kept == json.loads(plain.model_dump_json(exclude=skipped))
    numbers = [[r for r in x.summary if r.metric] for x in (ours, plain)]
    assert numbers[0] == numbers[1]
    assert [s.kind for s in plain.evidence] == ["empirical"]
    assert ours.evidence[1] == plain.evidence[0]


@pytest.mark.parametrize("verdict", ["LEAKS", "MEMORY GONE WITHIN LIMITS"])
def test_a_verdict_changes_nothing_that_a_certificate_says(certified, verdict, monkeypatch):
    *_, certificate, given, after = certified
    findings = "unlearnkit.auditing.audit.judge"
    from unlearnkit.report.schema import Finding, Verdict

    monkeypatch.setattr(findings, lambda _: (Finding(verdict=Verdict(verdict), reason="so"),))
    report = uk.audit(after, **given, certificate=certificate)
    assert report.verdict == verdict
    assert report.evidence[0] == certificate.as_statement()


def test_text_page_and_data_show_each_kind_under_its_own_heading(certified, tmp_path):
    report, plain, certificate, *_ = certified
    head = str(report)
    assert "Evidence: certified (newton_removal, epsilon" in head
    assert "empirical (this audit). Each stands by itself." in " ".join(head.split())
    text = report.full()
    places = [text.index(h) for h in ("CERTIFIED EVIDENCE", "EMPIRICAL EVIDENCE", "\nSUMMARY")]
    assert places == sorted(places)
    flat = " ".join(text.split())
    assert all(said in flat for said in certificate.assumptions)
    page = report.save(tmp_path / "report.html").read_text()
    assert page.count('class="kind"') == 2
    assert all(said.replace("'", "&#39;") in page for said in certificate.assumptions)
    assert "Evidence: " not in str(plain)
    assert 'class="kind"' not in plain.save(tmp_path / "plain.html").read_text()
    again = uk.Report.load(report.save(tmp_path / "report.json"))
    assert again == report


def test_retraining_and_shards_are_exact():
    given = toy_case(uk.Classification(3))
    for case, method in ((given, "retrain"), (sharded_case(given, shards=3), "sisa")):
        model = uk.train_original(case).model
        done = uk.unlearn(model, case, uk.Rows(0, 1), method)
        report = uk.audit(done, tier="fast")
        exact, measured = report.evidence
        assert (exact.kind, measured.kind) == ("exact", "empirical")
        assert exact.statement == "no part of the model was trained on the forget set"
        assert exact.source == f"method {method}, seed 0"
        assert exact.assumptions == done.method.info.exact
        assert f"Evidence: exact (method {method}, seed 0)" in str(report)
    corrected = uk.unlearn(model, case, uk.Labels({3: 1}), "sisa")
    (said, _) = uk.audit(corrected, tier="fast").evidence
    assert said.statement == "no part of the model was trained on the rows as they were"


def test_other_methods_have_what_the_audit_measured_alone():
    given = toy_case(uk.Classification(3))
    done = uk.unlearn(uk.train_original(given).model, given, uk.Rows(0, 1), "finetune")
    (measured,) = uk.audit(done, tier="fast").evidence
    assert measured.kind == "empirical"
    assert measured.source == "audit, fast tier, no retrained model"


def test_exact_and_certified_evidence_may_both_be_there():
    given = toy_case(uk.Classification(3))
    done = uk.unlearn(uk.train_original(given).model, given, uk.Rows(0, 1), "retrain")
    more = EvidenceStatement(kind="certified", statement="close", source="another tool")
    kinds = [s.kind for s in uk.audit(done, tier="fast", certificate=more).evidence]
    assert kinds == ["exact", "certified", "empirical"]


def test_the_evidence_of_shards_may_come_with_a_model():
    given = toy_case(uk.Classification(3))
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    removal = ShardedClassifier(DecisionTreeClassifier(), shards=2).fit(x, y).unlearn([1])
    done = uk.unlearn(uk.train_original(given).model, given, uk.Rows(1), "finetune")
    report = uk.audit(done, tier="fast", certificate=removal.evidence)
    assert report.evidence[0].source == "sisa: 2 x 1 (shards x slices)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda m: m.unlearn(rows=[1]), "evidence is approximate, which guarantees no likeness"),
        (
            lambda m: m.certificate(),
            "it is of a model with 0 removed rows, and the request names 2",
        ),
        (lambda m: "certified", "certificate: got str; pass what unlearn"),
        (
            lambda m: EvidenceStatement(kind="empirical", statement="", source=""),
            "an empirical statement is no certificate",
        ),
    ],
)
def test_what_certifies_nothing_is_refused_before_the_audit(make, said):
    x, y, *_ = tumours()
    given = toy_case(uk.Classification(3))
    done = uk.unlearn(uk.train_original(given).model, given, uk.Rows(0, 1), "finetune")
    model = fitted(budget=None).fit(x, y)
    if "approximate" in said:
        model.unlearn(rows=[2])
    with pytest.raises(InputError, match=said):
        uk.audit(done, tier="fast", certificate=make(model))


def test_reports_of_earlier_versions_have_no_evidence(tmp_path):
    path = full().save(tmp_path / "old.json")
    content = json.loads(path.read_text())
    del content["evidence"]
    path.write_text(json.dumps(content))
    assert uk.Report.load(path).evidence == ()


MODELS = {
    "logistic": fitted,
    "plain": lambda: RemovableLogisticRegression(fit_intercept=False),
    "multinomial": RemovableMultinomialRegression,
    "hinge": RemovableSmoothHinge,
    "ridge": RemovableRidge,
    "poisson": RemovablePoissonRegressor,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_linear_network_answers_as_the_model_does(name):
    x, y, *_ = tumours()
    y = y + (np.arange(300) % 3 if name == "multinomial" else 0)
    model = MODELS[name]().fit(x, y)
    model.unlearn(features=[3])
    out = linear_network(model)(torch.from_numpy(x)).detach().numpy()
    if hasattr(model, "predict_proba"):
        both = np.concatenate([np.zeros_like(out), out], 1) if out.shape[1] == 1 else out
        want = model.predict_proba(x)
        got = torch.from_numpy(both).softmax(-1).numpy()
    elif name == "hinge":
        got, want = out[:, 0], model.decision_function(x)
    else:
        got, want = out[:, 0], model.predict(x)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["multinomial", "ridge", "poisson"])
def test_a_linear_case_trains_by_the_models_own_solver(name, tmp_path):
    x, y, *_ = tumours()
    y = y + (np.arange(300) % 3 if name == "multinomial" else 0)
    case = linear_case(lambda seed: MODELS[name](), train=(x, y))
    (oracle,) = uk.oracle(case, uk.Rows(GO), seeds=1, cache=uk.Cache(tmp_path)).models
    want = linear_network(MODELS[name]().fit(np.delete(x, GO, 0), np.delete(y, GO)))
    for ours, theirs in zip(oracle.parameters(), want.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
