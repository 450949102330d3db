"""A request from arrival to a published model: found first, changed then, judged by policy."""

import json

import pytest
import torch
import yaml

import unlearnkit as uk
from tests.ledger.conftest import small_case, write_policy
from unlearnkit.checkpoint import load_weights
from unlearnkit.core.errors import InputError, UnsupportedError

pytest.importorskip("cryptography")


def published(ledger):
    pointer = json.loads((ledger.folder / "current.json").read_text())
    path = ledger.folder / pointer["folder"] / pointer["file"]
    return load_weights(ledger.case.fresh(), path).state_dict()


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_the_published_model_is_that_of_the_python_call(ledger):
    ledger.request("rows=a0003,a0001", id="one")
    ledger.request("group=owner-5", id="two")
    outcome = ledger.run()
    assert (outcome.state, outcome.requests) == ("done", ("one", "two"))
    original = uk.train_original(ledger.case, cache=ledger.cache).model
    gone = uk.Rows("a0001", "a0003", "a0020", "a0021", "a0022", "a0023")
    want = uk.unlearn(original, ledger.case, gone, "finetune").model.state_dict()
    assert same(published(ledger), want)
    assert ledger.check() == []


def test_the_next_batch_goes_on_from_the_model_and_the_rows_that_are_left(ledger):
    ledger.request("rows=a0003")
    ledger.run()
    ledger.request("rows=a0007")
    ledger.run()
    case, first = ledger.case, uk.Rows("a0003")
    model = uk.train_original(case, cache=ledger.cache).model
    model = uk.unlearn(model, case, first, "finetune").model
    case = case.after_deletion(first)
    want = uk.unlearn(model, case, uk.Rows("a0007"), "finetune").model.state_dict()
    assert same(published(ledger), want)


def test_deleted_rows_may_be_taken_out_of_the_case_before_the_next_batch(ledger):
    ledger.request("rows=a0003")
    ledger.run()
    whole = ledger.case
    stay = [i for i in range(60) if i != 3]
    ledger.case = uk.Case(
        train=(whole.train.x[stay], whole.train.y[stay]),
        test=(whole.test.x, whole.test.y),
        task=whole.task,
        keys=[whole.keys.rows[i] for i in stay],
        group=[f"owner-{i // 4}" for i in stay],
        fresh=whole.fresh,
        recipe=whole.recipe,
    )
    ledger.request("rows=a0007")
    assert ledger.run().state == "done"


@pytest.mark.parametrize("what", ["values", "keys", "owners"])
def test_other_rows_keys_or_owners_than_before_are_refused(ledger, what):
    ledger.request("rows=a0003", id="one")
    whole = ledger.case
    order = list(range(60))
    order[10], order[20] = 20, 10
    keys, owners = list(whole.keys.rows), [f"owner-{i // 4}" for i in range(60)]
    ledger.case = uk.Case(
        train=(whole.train.x + (what == "values"), whole.train.y),
        test=(whole.test.x, whole.test.y),
        task=whole.task,
        keys=[keys[i] for i in order] if what == "keys" else keys,
        group=[owners[i] for i in order] if what == "owners" else owners,
        fresh=whole.fresh,
        recipe=whole.recipe,
    )
    with pytest.raises(InputError, match="other training rows, keys or owners"):
        ledger.run()
    assert ledger.states() == {"one": "waiting"}


def test_a_subject_in_no_row_leaves_the_queue_and_the_others_are_answered(ledger):
    ledger.request("rows=a0003,zzz", id="half")
    ledger.request("rows=a0001", id="good")
    outcome = ledger.run()
    assert outcome.requests == ("good",)
    assert outcome.missing == {"half": "not in the training data: 1 of 2 rows"}
    assert ledger.states() == {"half": "not found", "good": "done"}


def test_where_nothing_is_found_nothing_is_changed(ledger):
    ledger.request("rows=zzz", id="nobody")
    assert ledger.run().state == ""
    kinds = [e.kind for e in ledger.entries()]
    assert kinds == ["ledger", "request", "policy", "not_found"]
    assert [p.name for p in (ledger.folder / "models").iterdir()] == ["original"]


def test_a_subject_that_is_deleted_already_is_said(ledger):
    ledger.request("rows=a0003", id="one")
    ledger.run()
    ledger.request("rows=a0003", id="again")
    missing = ledger.run().missing
    assert missing == {
        "again": "not in the training data: 1 of 1 rows; deleted by an earlier batch: 1"
    }


def test_the_rows_are_committed_to_before_any_model_changes(ledger):
    ledger.request("rows=a0003")
    ledger.run()
    kinds = [e.kind for e in ledger.entries()]
    assert kinds == ["ledger", "request", "policy", "batch", "attempt", "certificate"]
    (batch,) = ledger.entries("batch")
    assert batch.body["rows"] == 1
    assert len(batch.body["commitment"]) == 64


def test_no_name_of_a_subject_is_in_any_file(ledger):
    ledger.request("rows=a0003,a0017", id="one", reason="Art. 17(1)(b)")
    ledger.request("group=owner-9", id="two")
    ledger.run()
    names = (b"a0003", b"a0017", b"owner-9")
    content = {p: p.read_bytes() for p in ledger.folder.rglob("*") if p.is_file()}
    assert len(content) > 8
    assert [(p, n) for p, c in content.items() for n in names if n in c] == []


def test_the_published_report_has_nothing_of_single_rows(ledger):
    ledger.request("rows=a0003")
    folder = ledger.folder / ledger.run().folder
    report = json.loads((folder / "report.json").read_text())
    assert report["margins"] == report["classes"] == []
    assert report["request_summary"]["labels"] == {}
    assert report["provenance"]["request"] == report["provenance"]["training_data"] == ""
    assert report["provenance"]["removed_rows"] is None


def test_a_verdict_that_the_policy_refuses_is_not_published(make):
    ledger = make(accept=["MATCHES RETRAINING WITHIN LIMITS"])
    ledger.request("rows=a0003", id="one")
    outcome = ledger.run()
    assert outcome.state == "rejected"
    assert ledger.states() == {"one": "rejected"}
    assert json.loads((ledger.folder / "current.json").read_text())["folder"] == "models/original"
    (entry,) = ledger.entries("rejected")
    assert entry.body["notify"] == "dpo"
    assert "refused by the policy" in entry.body["why"]
    assert ledger.check() == []


def test_a_rejected_request_is_tried_again_under_a_changed_policy(make):
    ledger = make(accept=["MATCHES RETRAINING WITHIN LIMITS"])
    ledger.request("rows=a0003", id="one")
    ledger.run()
    assert ledger.run() is None
    write_policy(ledger.folder)
    assert ledger.run(retry=True).state == "done"
    assert len(ledger.entries("policy")) == 2
    assert ledger.check() == []


def test_retraining_follows_where_no_method_is_accepted(make):
    ledger = make(
        accept=["MATCHES RETRAINING WITHIN LIMITS"], accept_exact=["INCONCLUSIVE"],
        retrain_at_end=True,
    )  # fmt: skip
    ledger.request("rows=a0003")
    ledger.run()
    first, second = ledger.entries("attempt")
    assert (first.body["accepted"], second.body["id"]) == (False, "retrain")
    assert second.body["evidence"]["kind"] == "exact"
    original = uk.train_original(ledger.case, cache=ledger.cache).model
    want = uk.unlearn(original, ledger.case, uk.Rows("a0003"), "retrain").model.state_dict()
    assert same(published(ledger), want)


def test_a_spent_cost_cap_keeps_methods_out_but_not_the_retraining_at_the_end(make):
    ledger = make(
        accept=[], accept_exact=["INCONCLUSIVE"], max_cost=1e-6, retrain_at_end=True,
        methods=["finetune", "neggrad_plus"],
    )  # fmt: skip
    ledger.request("rows=a0003")
    assert ledger.run().state == "done"
    why = [e.body["why"] for e in ledger.entries("attempt")]
    assert why[1] == "not tried: the cost cap 1e-06 is spent"
    assert ledger.entries("attempt")[2].body["id"] == "retrain"


def test_a_method_that_cannot_run_is_recorded_and_the_next_one_tried(make):
    ledger = make(methods=["unsir", "finetune"])  # unsir serves whole classes alone
    ledger.request("rows=a0003")
    assert ledger.run().state == "done"
    first, second = ledger.entries("attempt")
    assert first.body["why"].startswith("did not end in a model: unsir")
    assert second.body["accepted"]


def test_auto_chooses_and_the_entry_names_what_it_chose(make):
    ledger = make(methods=["auto"])
    ledger.request("rows=a0003")
    ledger.run()
    (attempt,) = ledger.entries("attempt")
    assert attempt.body["id"] in uk.catalog.methods()


def test_a_class_is_passed_on_as_a_class(make):
    ledger = make(methods=["unsir"])
    ledger.request("class=2", id="two")
    ledger.run()
    (batch,) = ledger.entries("batch")
    assert batch.body["rows"] == 20


def test_a_batch_waits_for_company_unless_a_deadline_is_near(make):
    ledger = make(batch={"at_least": 3, "days_before_deadline": 5, "longest_wait_days": 10})
    ledger.request("rows=a0003", id="one")
    assert ledger.run() is None
    ledger.request("rows=a0004", id="two", deadline="2126-01-01")
    assert ledger.run() is None
    soon = ledger.entries("request")[0].time[:10]
    ledger.request("rows=a0005", id="urgent", deadline=soon)
    assert ledger.run().requests == ("urgent", "one", "two")


def test_a_batch_has_at_most_so_many_requests_those_of_the_nearest_deadline_first(make):
    ledger = make(batch={"most": 1})
    ledger.request("rows=a0003", id="late", deadline="2126-01-01")
    ledger.request("rows=a0004", id="soon", deadline="2125-01-01")
    assert ledger.run().requests == ("soon",)
    assert ledger.run().requests == ("late",)


def test_a_deadline_that_has_passed_is_refused_on_arrival(ledger):
    with pytest.raises(InputError, match="deadline: 2020-01-01 has passed; give the day"):
        ledger.request("rows=a0003", deadline="2020-01-01")
    assert ledger.states() == {}


def test_a_request_answered_after_its_deadline_says_so(make):
    ledger = make(answer_within_days=1e-9)
    ledger.request("rows=a0003")
    folder = ledger.folder / ledger.run().folder
    envelope = json.loads((folder / "certificate.json").read_text())
    import base64

    said = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    assert said["requests"][0]["late"] is True


@pytest.mark.parametrize(
    ("forget", "more", "error", "message"),
    [
        ("target<30", {}, UnsupportedError, "deletes rows, groups or classes, got targets"),
        ("rows=", {}, InputError, "request: "),
        ("rows=a0003", {"id": "two words"}, InputError, "an id has 1 to 200 letters"),
        ("rows=a0003", {"reason": "as a0003 wrote"}, InputError, "holds the name of a subject"),
        ("rows=a0003", {"id": "a0003"}, InputError, "holds the name of a subject"),
        ("rows=a0003", {"reason": "x" * 201}, InputError, "at most 200 printable"),
        ("rows=a0003", {"deadline": "soon"}, InputError, "expected a date such as"),
    ],
)
def test_a_wrong_request_is_refused_and_nothing_is_written(ledger, forget, more, error, message):
    with pytest.raises(error, match=message):
        ledger.request(forget, **more)
    assert [e.kind for e in ledger.entries()] == ["ledger"]


def test_a_case_without_keys_is_named_by_the_positions_of_the_first_day(make):
    whole = small_case()
    case = uk.Case(
        train=(whole.train.x, whole.train.y), test=(whole.test.x, whole.test.y),
        task=whole.task, fresh=whole.fresh, recipe=whole.recipe,
    )  # fmt: skip
    ledger = make(case=case)
    ledger.request("rows=3")
    ledger.run()
    ledger.request("rows=7")
    ledger.run()
    from unlearnkit.ledger.subjects import SubjectKeys

    after = case.replace(keys=whole.keys).after_deletion(uk.Rows("a0003", "a0007"))
    last = ledger.entries("batch")[-1]
    want = SubjectKeys(ledger.folder).current().commit(after.train.key().encode())
    assert last.body["data"]["after"]["rows"] == want


def test_a_model_that_another_program_changed_stops_the_ledger(ledger):
    path = ledger.folder / "models" / "original" / "model.safetensors"
    uk.save_weights(ledger.case.fresh(), path)
    ledger.request("rows=a0003", id="one")
    with pytest.raises(InputError, match="is not the model that was recorded"):
        ledger.run()
    assert ledger.states() == {"one": "waiting"}


def test_two_ledgers_on_one_model_are_refused(make, tmp_path):
    path = uk.save_weights(small_case().fresh(), tmp_path / "trained.safetensors")
    first = make("first", model=path)
    with pytest.raises(InputError, match=r"has the ledger '.*first' already; send requests there"):
        make("second", model=path)
    assert not (tmp_path / "second" / "ledger.sqlite").exists()
    first.request("rows=a0003")
    assert first.run().state == "done"


def test_a_second_ledger_in_the_same_place_is_refused(ledger, make):
    with pytest.raises(InputError, match="has a ledger; choose another place"):
        make()


def test_a_wrong_policy_is_one_line_with_the_remedy(ledger):
    text = yaml.safe_dump({"signer": {"name": "x"}, "accept": ["FINE"]})
    (ledger.folder / "policy.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^policy: accept.0: .*; mend policy.yaml$"):
        ledger.run()
