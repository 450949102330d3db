"""Many batches one after another: drift is counted, and retraining comes when the policy says."""

import base64
import itertools
import json
import math
import time

import pytest
import torch

import unlearnkit as uk
from tests.ledger.conftest import small_case
from unlearnkit.checkpoint import load_weights
from unlearnkit.ledger.drift import Drift, published_drift
from unlearnkit.ledger.policy import RetrainRule
from unlearnkit.sisa import sharded_case

pytest.importorskip("cryptography")


def weights(ledger, folder):
    path = ledger.folder / folder / "model.safetensors"
    return load_weights(ledger.case.fresh(), path)


def errors(model, x, y):
    with torch.no_grad():
        return float((model(x).argmax(1) != y).double().mean())


def norm(state):
    return math.sqrt(sum(float(p.double().square().sum()) for p in state.values()))


def drift(ledger):
    with ledger.open() as register:
        return published_drift(register)


def test_drift_is_what_a_count_by_hand_says(ledger):
    assert drift(ledger) is None
    for k in (3, 4):
        ledger.request(f"rows=a000{k}")
        ledger.run()
    found, case = drift(ledger), ledger.case
    chain = [weights(ledger, f"models/{f}") for f in ("original", "batch-0001-1", "batch-0002-1")]
    states = [m.state_dict() for m in chain]
    steps = [norm({n: b[n] - a[n] for n in a}) / norm(a) for a, b in itertools.pairwise(states)]
    stay = [i for i in range(60) if i not in (3, 4)]
    assert (found.since, found.batches, found.rows) == ("original", 2, 2)
    assert found.rows_share == 2 / 60
    assert found.distance == pytest.approx(sum(steps), rel=1e-6)
    assert found.test_error == errors(chain[2], case.test.x, case.test.y)
    assert found.test_error_at_start == errors(chain[0], case.test.x, case.test.y)
    assert found.retain_error == errors(chain[2], case.train.x[stay], case.train.y[stay])
    assert found.retain_error_at_start == errors(chain[0], case.train.x, case.train.y)
    assert found.cost == sum(e.body["cost"] for e in ledger.entries("attempt"))


def test_the_certificate_has_the_drift_and_says_that_earlier_rows_are_not_audited_again(ledger):
    said = []
    for k in (3, 4):
        ledger.request(f"rows=a000{k}")
        path = ledger.folder / ledger.run().folder / "certificate.json"
        payload = base64.b64decode(json.loads(path.read_text())["payload"])
        said.append(json.loads(payload)["predicate"])
    words = "anything about the rows of the 1 batches before it since original"
    assert [sum(w.startswith(words) for w in s["does_not_prove"]) for s in said] == [0, 1]
    assert said[1]["drift"] == drift(ledger).model_dump(mode="json")


def answer(ledger, count, rows=1):
    """Answer that many batches of that many rows; return the method of each published model."""
    for k in range(count):
        names = ",".join(f"a{k * rows + i:04}" for i in range(rows))
        ledger.request(f"rows={names}", id=f"r{k}")
        ledger.run()
    with ledger.open() as register:
        done = register.entries("certificate")
        return [register.entry(e.body["attempt"]).body["id"] for e in done]


EXACT = ["MATCHES RETRAINING WITHIN LIMITS", "INCONCLUSIVE", "LEAKS", "DAMAGED", "OVER-FORGOT"]


@pytest.mark.parametrize(
    ("rule", "rows", "want"),
    [
        ({"batches": 2}, 1, "ffrffr"),
        ({"batches": 0}, 1, "rr"),
        ({"rows_share": 0.1}, 3, "ffrfr"),
        ({"cost": 1e-9}, 1, "frfr"),
    ],
)
def test_a_batch_beyond_the_rule_is_retrained_and_the_count_begins_anew(make, rule, rows, want):
    ledger = make(retrain_when=rule, accept_exact=EXACT)
    assert "".join(m[0] for m in answer(ledger, len(want), rows)) == want
    last = drift(ledger)
    after = len(want) - 1 - want.rindex("r")
    assert (last.batches, last.rows) == (after, after * rows)
    assert last.since == f"batch-{want.rindex('r') + 1:04}"
    reasons = ["retrain" in e.body for e in ledger.entries("batch")]
    assert reasons == [letter == "r" for letter in want]
    assert ledger.check() == []


def test_a_model_with_too_high_a_test_error_is_refused_and_the_next_method_tried(make):
    ledger = make(
        settings={"finetune": {"run": {"lr": 20.0}}}, accept_exact=EXACT,
        retrain_when={"test_error_rise": 0.01},
    )  # fmt: skip
    ledger.request("rows=a0003,a0004")
    assert ledger.run().state == "done"
    first, second = (e.body for e in ledger.entries("attempt"))
    assert (first["accepted"], second["id"]) == (False, "retrain")
    assert "since original, the policy allows +0.0100" in first["why"]


def test_rows_of_a_deleted_class_are_no_test_rows_any_more(ledger):
    ledger.request("class=2")
    folder = ledger.run().folder
    test = ledger.case.test
    stay = test.y != 2
    found = drift(ledger).test_error
    assert found == errors(weights(ledger, folder), test.x[stay], test.y[stay])
    assert found != errors(weights(ledger, folder), test.x, test.y)


NOW = Drift.zero("batch-0007", 0.1, 0.2).model_copy(
    update={"batches": 5, "rows": 10, "cost": 1.5, "test_error": 0.25}
)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({}, ""),
        ({"batches": 6, "rows_share": 0.12, "cost": 1.6}, ""),
        ({"batches": 5}, "5 batches since batch-0007, the policy allows 5"),
        ({"rows_share": 0.1}, "10.91% of the rows since batch-0007, the policy allows 10.00%"),
        ({"cost": 1.5}, "cost 1.5 since batch-0007, the policy allows 1.5"),
    ],
)
def test_the_rule_says_why(rule, why):
    assert RetrainRule(**rule).due(NOW, 2, 100) == why


def test_the_rule_for_errors_compares_with_the_last_retraining():
    assert RetrainRule(test_error_rise=0.05).refuses(NOW) == ""
    assert RetrainRule(test_error_rise=0.04).refuses(NOW).startswith("test error +0.0500 since")
    blind = NOW.model_copy(update={"test_error": None})
    assert RetrainRule(test_error_rise=0.0).refuses(blind) == ""


def test_shards_answer_one_batch_after_another_exactly(make):
    """Bit by bit the model that both requests at once give, which a test of SISA compares."""
    case = sharded_case(small_case(), shards=3)
    ledger = make(case=case, methods=["sisa"], accept=[], accept_exact=EXACT)
    assert answer(ledger, 2) == ["sisa", "sisa"]
    attempt = ledger.entries("attempt")[-1].body
    assert attempt["evidence"]["kind"] == "exact"
    assert attempt["drift"]["batches"] == 0
    original = uk.train_original(case, cache=ledger.cache).model
    both = uk.Rows("a0000", "a0001")
    want = uk.unlearn(original, case, both, "sisa", cache=ledger.cache).model.state_dict()
    got = weights(ledger, attempt["folder"]).state_dict()
    assert all(torch.equal(got[k], want[k]) for k in want)


def test_shards_that_another_method_has_changed_are_not_exact(make):
    case = sharded_case(small_case(), shards=3)
    ledger = make(case=case, methods=["finetune"], accept_exact=EXACT)
    ledger.request("rows=a0000", id="one")
    ledger.run()
    from tests.ledger.conftest import write_policy

    write_policy(ledger.folder, methods=["sisa"])
    ledger.request("rows=a0001", id="two")
    ledger.run()
    attempt = ledger.entries("attempt")[-1].body
    assert (attempt["id"], attempt["evidence"]["kind"]) == ("sisa", "empirical")
    assert attempt["drift"]["batches"] == 2


def test_a_case_stays_the_same_size_of_work_after_hundreds_of_requests(ledger):
    """What a run reads of earlier requests is one query: a few microseconds a request."""
    from unlearnkit.ledger.subject_rows import case_now
    from unlearnkit.ledger.subjects import SubjectKeys

    keys = SubjectKeys(ledger.folder)
    ledger.request("rows=a0003", id="one")
    ledger.run()
    (body,) = [e.body for e in ledger.entries("request")]
    batch, attempt, done = (ledger.entries(k)[0].body for k in ("batch", "attempt", "certificate"))

    def seconds():
        with ledger.open() as register:
            start = time.process_time()
            case_now(register, keys, ledger.case)
            return time.process_time() - start

    few = min(seconds() for _ in range(3))
    with ledger.open() as register:
        for k in range(300):
            register.receive({**body, "id": f"x{k}"}, body["deadline"])
            named = {"requests": [f"x{k}"]}
            register.append("batch", {**batch, **named, "id": f"b{k}"})
            register.append("attempt", {**attempt, "batch": f"b{k}"})
            register.append("certificate", {**done, **named, "batch": f"b{k}"})
    many = min(seconds() for _ in range(3))
    assert many - few < 300 * 100e-6
