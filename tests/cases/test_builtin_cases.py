"""The bundled cases are what they say, and each of their requests can be asked."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge

import unlearnkit as uk
from unlearnkit import catalog
from unlearnkit.cases import digits
from unlearnkit.cases.registry import ModelSelectedRequest, bundled_requests
from unlearnkit.core.data import View
from unlearnkit.core.request import Groups
from unlearnkit.oracles import train_original
from unlearnkit.studies.planning.problem import StudyProblems

BUNDLED = ("digits", "breast_cancer", "diabetes", "digits_number", "demand")
SIZES = {
    "digits": (1437, 270, 90),
    "breast_cancer": (399, 114, 56),
    "diabetes": (310, 88, 44),
    "digits_number": (1437, 270, 90),
    "demand": (2448, 936, 312),
}
ASKED = {
    ("digits", "class"): 146,
    ("digits", "classes"): 431,
    ("digits", "sub_class"): 146,
    ("digits", "random_tenth"): 143,
    ("digits", "random_twentieth"): 71,
    ("digits", "random_hundredth"): 14,
    ("digits", "stratified_tenth"): 143,
    ("digits", "non_iid"): 143,
    ("digits", "memorised_tenth"): 143,
    ("digits", "unmemorised_tenth"): 143,
    ("digits", "low_entanglement"): 143,
    ("digits", "middle_entanglement"): 143,
    ("digits", "high_entanglement"): 143,
    ("digits", "hardest_tenth"): 143,
    ("digits", "high_curvature_tenth"): 143,
    ("digits", "holdout_sensitive_tenth"): 143,
    ("digits", "influential_tenth"): 143,
    ("digits", "mislabelled_tenth"): 143,
    ("digits_backdoor", "all_poisoned"): 72,
    ("digits_backdoor", "half_poisoned"): 36,
    ("digits_backdoor", "tenth_poisoned"): 7,
    ("digits_swapped", "all_poisoned"): 116,
    ("digits_swapped", "half_poisoned"): 58,
    ("digits_swapped", "tenth_poisoned"): 12,
    ("digits_half", "random_tenth"): 90,
    ("digits_half", "mislabelled_tenth"): 90,
    ("breast_cancer", "patients"): 10,
    ("breast_cancer", "class"): 149,
    ("breast_cancer", "random_tenth"): 39,
    ("diabetes", "random_tenth"): 31,
    ("diabetes", "group"): 30,
    ("digits_number", "range"): 430,
    ("digits_number", "group"): 145,
    ("digits_number", "random_tenth"): 143,
    ("demand", "group"): 612,
    ("demand", "customer"): 102,
    ("demand", "range"): 194,
    ("demand", "random_tenth"): 244,
}
MANY_MODELS = {("digits", "memorized_tenth_leave_out")}
"""Trains 64 models; what it does is tested on a smaller case."""


def built(name):
    return uk.catalog.cases()[name].make()


@pytest.mark.parametrize("name", BUNDLED)
def test_a_case_has_the_stated_rows(name):
    case = built(name)
    assert (len(case.train), len(case.test), len(case.validation)) == SIZES[name]


@pytest.mark.parametrize("name", BUNDLED)
def test_no_row_is_in_two_sets(name):
    case = built(name)
    sets = [{r.numpy().tobytes() for r in d.x} for d in (case.train, case.test, case.validation)]
    assert len(sets[0] | sets[1] | sets[2]) == sum(len(s) for s in sets)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_case_is_the_same_each_time(name):
    assert built(name).train.key() == built(name).train.key()


@pytest.mark.parametrize("pair", ASKED, ids="/".join)
def test_a_named_request_forgets_this_many_rows(pair):
    asked = uk.catalog.cases()[pair[0]].ask(pair[1])
    assert len(asked.case.partition(asked.request).forget) == ASKED[pair]


@pytest.mark.parametrize("pair", ASKED, ids="/".join)
def test_a_named_request_can_be_unlearned(pair):
    asked = uk.catalog.cases()[pair[0]].ask(pair[1])
    method = uk.method("finetune", run={"kind": "tuning", "recipe": {"epochs": 1, "lr": 0.01}})
    done = uk.unlearn(asked.case.fresh(), asked.case, asked.request, method)
    assert done.cost.backward == len(asked.case.partition(asked.request).retain)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_training_features_are_standardised(name):
    x = built(name).train.x.double()
    torch.testing.assert_close(x.mean(0), torch.zeros_like(x[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones_like(x[0]), rtol=1e-5, atol=0)


def test_every_patient_is_one_group_of_the_source():
    case, bunch = built("breast_cancer"), load_breast_cancer()
    assert len(case.train.group.unique()) == len(case.train)
    assert np.array_equal(case.train.y.numpy(), bunch.target[case.train.group.numpy()])


def test_forgotten_patients_are_training_patients():
    asked = uk.catalog.cases()["breast_cancer"].ask("patients")
    assert isinstance(asked.request, Groups)
    assert set(asked.request.groups) <= set(asked.case.train.group.tolist())


def test_a_unit_of_diabetes_is_the_deviation_of_the_training_scores():
    case, bunch = built("diabetes"), load_diabetes(scaled=False)
    y = case.train.y[:, 0].double()
    assert abs(float(y.mean())) < 1e-5
    every = torch.cat([case.train.y, case.test.y, case.validation.y]).double()
    assert (np.ptp(bunch.target) / float(every.max() - every.min())) == pytest.approx(77, abs=1.5)


def test_the_forgotten_group_of_diabetes_is_in_its_twenties():
    asked = uk.catalog.cases()["diabetes"].ask("group")
    source = load_diabetes(scaled=False)
    ages = {round(float(a), 3) for a in source.data[:, 0] if 20 <= a < 30}
    x = asked.case.train.x[:, 0].double()
    go = asked.case.partition(asked.request).forget.rows
    stay = asked.case.partition(asked.request).retain.rows
    older = x[stay][asked.case.train.group[stay] > 2]
    assert len(ages) == 10
    assert float(x[go].max()) < float(older.min())


def error(case):
    net = train_original(case).model.eval()
    with torch.inference_mode():
        parts = [
            case.task.errors(case.task.outputs(net, b), b)
            for b in View.all(case.test).batches(512, uk.Runtime())
        ]
    return float(torch.cat(parts).mean())


def test_the_network_of_breast_cancer_has_one_logit_and_keeps_up_with_logistic_regression():
    case = built("breast_cancer")
    assert case.fresh()(case.test.x).shape == (114, 1)
    line = LogisticRegression().fit(case.train.x, case.train.y)
    assert error(case) <= 1 - line.score(case.test.x, case.test.y) + 0.05


def test_the_network_of_diabetes_keeps_up_with_ridge_regression():
    case = built("diabetes")
    line = Ridge().fit(case.train.x, case.train.y[:, 0])
    other = np.abs(line.predict(case.test.x) - case.test.y[:, 0].numpy()).mean()
    assert error(case) < 1.1 * other


def test_every_named_request_of_the_bundled_cases_is_counted():
    asked = {
        (name, r)
        for name in (*BUNDLED, "digits_half", "digits_backdoor", "digits_swapped")
        for r in uk.catalog.cases()[name].requests
    }
    assert asked == set(ASKED) | MANY_MODELS


def test_wrong_labels_are_wrong_on_the_forgotten_rows_and_right_on_the_others():
    asked = uk.catalog.cases()["digits"].ask("mislabelled_tenth")
    wrong = asked.case.train.y != built("digits").train.y
    assert wrong.nonzero()[:, 0].tolist() == list(asked.request.rows)
    assert len(asked.case.train.y[wrong].unique()) == 10


def sub_class():
    asked = uk.catalog.cases()["digits"].ask("sub_class")
    return asked.case, asked.request, built("digits")


def test_a_super_class_is_the_parity_of_the_digit_and_the_digit_the_group():
    case, request, plain = sub_class()
    for ours, theirs in ((case.train, plain.train), (case.test, plain.test)):
        assert torch.equal(ours.group, theirs.y)
        assert torch.equal(ours.y, theirs.y % 2)
        assert torch.equal(ours.x, theirs.x)
    assert request == Groups(3)
    assert case.fresh()(case.test.x).shape == (270, 2)


def test_the_held_out_rows_of_a_sub_class_are_its_test_rows():
    case, _, plain = sub_class()
    assert torch.equal(case.held_out.x, plain.test.x[plain.test.y == 3])
    assert case.held_out.y.unique().tolist() == [1]


def test_no_class_is_gone_when_a_sub_class_is():
    case, request, _ = sub_class()
    assert case.partition(request).removed_classes == ()


@pytest.mark.slow
def test_a_model_retrained_without_threes_still_calls_most_of_them_odd():
    case, request, _ = sub_class()
    done = uk.unlearn(uk.train_original(case).model, case, request, "finetune")
    truth = uk.oracle(case, request, seeds=3)
    report = uk.audit(done, oracle=truth, placebo=False, recipe_check=False)
    retrained = report.row("accuracy_held_out").oracle.mean
    assert 0.65 < retrained < 0.95
    assert report.row("accuracy_held_out").original.value > 0.9
    assert report.row("accuracy_forget").oracle.mean == pytest.approx(retrained, abs=0.1)


def test_listing_cases_does_not_load_scikit_learn():
    code = (
        "import sys, unlearnkit.catalog as c; c.cases();"
        " sys.exit(any(m in sys.modules for m in ('sklearn', 'datasets', 'pandas', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OWN_ROWS = {"sub_class", "mislabelled_tenth"}
"""Requests that bring a training set of their own."""


SHARED = [
    (case, name)
    for case, name in bundled_requests(catalog.cases())
    if name not in OWN_ROWS
    and not isinstance(catalog.cases()[case].requests[name], ModelSelectedRequest)
]


@pytest.mark.parametrize(("case", "name"), SHARED)
def test_a_case_is_built_once_for_all_requests_that_leave_its_rows(case, name):
    entry = catalog.cases()[case]
    assert entry.make() is entry.make()
    assert entry.requests[name]().case is entry.make()


def test_a_study_reads_the_rows_of_a_case_once(monkeypatch):
    reads, rows = [], digits._sets()
    monkeypatch.setattr(digits, "_sets", lambda: reads.append(1) or rows)
    digits.digits.cache_clear()
    problems = StudyProblems()
    for request in ("class", "classes", "random_tenth", "sub_class", "classes=3", "rows=1,2"):
        assert len(problems.get("digits", request, "cpu", "fp32").parts.forget) > 0
    assert len(reads) == 1
