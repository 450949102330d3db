"""What still holds deleted rows is listed, ours is removed, and both are proved."""

import json

import pytest
import torch

import unlearnkit as uk
from tests.ledger.conftest import small_case
from unlearnkit.core.errors import InputError
from unlearnkit.core.row_sets import pack_rows, unpack_rows
from unlearnkit.oracles import oracle_keys, original_key

pytest.importorskip("cryptography")

from unlearnkit.ledger.carriers import find_carriers, purge
from unlearnkit.ledger.rerun import rerun

GONE = uk.Rows("a0003")


@pytest.fixture
def done(ledger):
    ledger.request("rows=a0003", id="one")
    ledger.run()
    return ledger


def listed(ledger):
    return find_carriers(ledger.folder, ledger.case, cache=ledger.cache)


def kinds(ledger):
    return [(c.kind, c.holds, c.ours) for c in listed(ledger)]


def without(case, *rows):
    """The case as its user keeps it after the rows were deleted at the source."""
    stay = [i for i in range(60) if i not in rows]
    return uk.Case(
        train=(case.train.x[stay], case.train.y[stay]), test=(case.test.x, case.test.y),
        task=case.task, keys=[case.keys.rows[i] for i in stay],
        group=[f"owner-{i // 4}" for i in stay], fresh=case.fresh, recipe=case.recipe,
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 8, 9, 1000])
def test_a_set_of_rows_comes_back_from_its_text(count):
    rows = torch.arange(0, count, 3)
    want = torch.zeros(count, dtype=torch.bool)
    want[rows] = True
    assert torch.equal(unpack_rows(pack_rows(rows, count), count), want)


def test_a_text_that_is_no_set_of_rows_is_an_error():
    with pytest.raises(ValueError, match="no set of rows"):
        unpack_rows("eA==", 8)


def test_before_any_deletion_nothing_is_a_carrier(ledger):
    assert listed(ledger) == []


def test_models_trained_with_the_rows_are_found_and_those_without_are_not(done):
    uk.oracle(done.case, GONE, seeds=2, cache=done.cache)
    uk.oracle(done.case, uk.Rows("a0009"), seeds=3, cache=done.cache)
    rt = uk.Runtime()
    (original, *others) = [
        done.cache._path(key)
        for key in (
            original_key(done.case, 0, rt),
            *oracle_keys(done.case, uk.Rows("a0009"), 3, rt),
            *oracle_keys(done.case, GONE, 2, rt),
        )
    ]
    found = {c.place: c.holds for c in listed(done)}
    assert [found.get(str(p)) for p in (original, *others[:3])] == ["yes"] * 4
    assert [found.get(str(p)) for p in others[3:]] == [None, None]


def test_a_later_deletion_makes_carriers_of_the_oracles_before(done):
    uk.oracle(done.case, GONE, seeds=2, cache=done.cache)
    before = len(listed(done))
    done.request("rows=a0007")
    done.run()
    models = [c for c in listed(done) if c.kind == "cached model" and c.holds == "yes"]
    assert len(listed(done)) > before
    rt = uk.Runtime()
    places = {str(done.cache._path(k)) for k in oracle_keys(done.case, GONE, 2, rt)}
    assert places <= {c.place for c in models}


def test_a_model_kept_by_an_earlier_version_is_possibly_one(done):
    for entry in done.cache.entries():
        side = entry.path.with_suffix(".json")
        held = json.loads(side.read_text())
        for name in ("data", "held"):
            held["facts"].pop(name, None)
        from unlearnkit.cache import _seal

        held["seal"] = _seal(held)
        side.write_text(json.dumps(held))
    found = {c.holds for c in listed(done) if c.kind == "cached model"}
    assert found == {"possibly"}


def test_models_of_other_cases_are_left_alone(done):
    toy = uk.Case(
        train=(torch.randn(30, 4), torch.arange(30) % 2), task="classification",
        fresh=lambda: torch.nn.Linear(4, 2), recipe=uk.Recipe(epochs=1),
    )  # fmt: skip
    uk.train_original(toy, cache=done.cache)
    path = done.cache._path(original_key(toy, 0, uk.Runtime()))
    assert str(path) not in {c.place for c in listed(done)}
    purge(done.folder, done.case, cache=done.cache)
    assert path.exists()


def test_margins_of_a_strong_audit_are_carriers_and_are_purged(make):
    ledger = make(tier="strong", ensemble_size=4)
    ledger.request("rows=a0003,a0009,a0010,a0017")
    ledger.run()
    assert ("cached signals", "yes", True) in kinds(ledger)
    purge(ledger.folder, ledger.case, cache=ledger.cache)
    assert [k for k in kinds(ledger) if k[2]] == []
    assert not any((ledger.cache.root / "signals").iterdir())


def test_purge_removes_ours_and_records_that_none_is_left(done):
    gone = [c.place for c in listed(done) if c.ours]
    entry = purge(done.folder, done.case, cache=done.cache)
    assert len(entry.body["removed"]) == len(gone) == 2
    assert entry.body["left"] == []
    assert entry.body["others"] == {"training data": 1}
    assert kinds(done) == [("training data", "yes", False)]
    assert done.check() == []
    done.request("rows=a0007")
    assert done.run().state == "done"


def test_what_another_process_works_on_is_left_and_said(done):
    from filelock import FileLock

    entry = next(e for e in done.cache.entries() if e.key["kind"] == "original")
    with FileLock(entry.path.with_suffix(".lock")):
        body = purge(done.folder, done.case, cache=done.cache).body
    assert body["left"] == ["cached model"]
    assert purge(done.folder, done.case, cache=done.cache).body["left"] == []


def test_declared_places_are_looked_into_or_listed(make, tmp_path):
    ledger = make(
        carriers={
            "checkpoints": [str(tmp_path / "weights")], "mlflow": ["models:/small/1"],
            "adapters": ["lora-7"], "others": ["nightly backup"],
        }
    )  # fmt: skip
    original = uk.train_original(ledger.case, cache=ledger.cache).model
    uk.save_weights(original, tmp_path / "weights" / "old.safetensors")
    uk.save_weights(original, tmp_path / "weights" / "old.pt")
    uk.save_weights(ledger.case.fresh(), tmp_path / "weights" / "stranger.safetensors")
    (tmp_path / "weights" / "optimizer.pt").write_bytes(b"no weights")
    ledger.request("rows=a0003")
    folder = ledger.folder / ledger.run().folder
    now = tmp_path / "weights" / "now.safetensors"
    now.write_bytes((folder / "model.safetensors").read_bytes())
    found = {c.place.rpartition("/")[2]: c for c in listed(ledger) if not c.ours}
    assert found["old.safetensors"].holds == found["old.pt"].holds == "yes"
    assert found["stranger.safetensors"].holds == found["optimizer.pt"].holds == "possibly"
    assert "now.safetensors" not in found
    assert "mlflow gc" in found["1"].action
    assert {found["lora-7"].kind, found["nightly backup"].kind} == {"adapters", "others"}
    purge(ledger.folder, ledger.case, cache=ledger.cache)
    assert (tmp_path / "weights" / "old.safetensors").exists()


def test_run_folders_with_the_rows_are_listed(make, tmp_path):
    ledger = make(carriers={"runs": [str(tmp_path / "runs")]})
    ledger.request("rows=a0003")
    ledger.run()
    before, after = ledger.case.train.key(), without(ledger.case, 3).train.key()
    digests = {
        "with": {"train": before}, "clean": {"train": after}, "other": {"train": "x"},
        "chain": {"train": "x", "original": ledger.entries("ledger")[0].body["model"]},
    }  # fmt: skip
    for name, some in digests.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps({"digests": some}))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("[]")
    found = [c.place.rpartition("/")[2] for c in listed(ledger) if c.kind == "run folder"]
    assert found == ["chain", "with"]


def test_without_the_rows_in_the_case_every_model_of_the_old_set_is_possibly_one(done):
    done.case = without(done.case, 3)
    found = kinds(done)
    assert ("cached model", "possibly", True) in found
    assert ("training data", "yes", False) not in found
    purge(done.folder, done.case, cache=done.cache)
    assert kinds(done) == []


def test_the_key_is_destroyed_when_nothing_needs_it_and_no_pseudonym_can_be_made_again(done):
    old = next((done.folder / "subjects").glob("*.key")).read_bytes()
    with pytest.raises(InputError, match="the key still finds rows in: training data"):
        purge(done.folder, done.case, destroy_key=True, cache=done.cache)
    done.case = without(done.case, 3)
    done.request("rows=a0007", id="two")
    with pytest.raises(InputError, match="1 requests still need the key"):
        purge(done.folder, done.case, destroy_key=True, cache=done.cache)
    done.run()
    done.case = without(small_case(), 3, 7)
    entry = purge(done.folder, done.case, destroy_key=True, cache=done.cache)
    assert len(entry.body["destroyed_keys"]) == 1
    assert [p for p in done.folder.rglob("*") if p.is_file() and old in p.read_bytes()] == []
    done.request("rows=a0009", id="three")
    assert done.run().state == "done"
    assert done.check() == []
    keys = {e.body["subject_key"] for e in done.entries("request")}
    assert len(keys) == 2


def test_a_kill_before_the_key_is_overwritten_is_found_and_made_good(done, monkeypatch):
    from unlearnkit.ledger.subjects import SubjectKeys

    done.case = without(done.case, 3)
    whole = SubjectKeys.destroy
    monkeypatch.setattr(SubjectKeys, "destroy", lambda *_: None)
    purge(done.folder, done.case, destroy_key=True, cache=done.cache)
    monkeypatch.setattr(SubjectKeys, "destroy", whole)
    (line,) = done.check()
    assert "should be destroyed and is there; unlearnkit ledger purge" in line
    purge(done.folder, done.case, cache=done.cache)
    assert done.check() == []


def test_nobody_with_the_whole_list_of_rows_can_tell_who_is_missing(done):
    """No digest of the rows, or of their keys, without one of them is in any file."""
    from unlearnkit.core.digest import digest, tensor_digest

    done.request("rows=a0007")  # its report is on the set without the first row
    done.run()
    guesses = set()
    for i in range(60):
        case = without(small_case(), i)
        owners = [f"owner-{k // 4}" for k in range(60) if k != i]
        names = {"rows": list(case.keys.rows), "owners": owners}
        guesses |= {case.train.key(), digest(names), tensor_digest(torch.tensor([i]))}
    content = [p.read_bytes() for p in done.folder.rglob("*") if p.is_file()]
    assert [g for g in guesses if any(g.encode() in c for c in content)] == []


def test_a_destroyed_key_and_rows_that_are_still_there_stop_the_next_batch(done):
    whole, done.case = done.case, without(done.case, 3)
    purge(done.folder, done.case, destroy_key=True, cache=done.cache)
    done.case = whole
    done.request("rows=a0009", id="two")
    with pytest.raises(InputError, match="other training rows, keys or owners"):
        done.run()


def test_a_deletion_is_repeated_bit_by_bit(done):
    done.request("rows=a0007")
    done.run()
    for batch in ("batch-0001", "batch-0002"):
        found = rerun(done.folder, batch, done.case)
        assert (found.same_rows, found.same_model, found.differences) == (True, True, ())


def test_a_repetition_on_other_rows_or_with_another_model_is_said(done):
    case = done.case
    other = uk.Case(
        train=(case.train.x + 1, case.train.y), test=(case.test.x, case.test.y), task=case.task,
        keys=list(case.keys.rows), fresh=case.fresh, recipe=case.recipe,
    )  # fmt: skip
    found = rerun(done.folder, "batch-0001", other)
    assert (found.same_rows, found.same_model) == (False, False)


def test_what_cannot_be_repeated_says_why(done):
    with pytest.raises(InputError, match="no batch 'batch-0009' is done; there are: batch-0001"):
        rerun(done.folder, "batch-0009", done.case)
    with pytest.raises(InputError, match="the case has no rows of this batch"):
        rerun(done.folder, "batch-0001", without(done.case, 3))
    purge(done.folder, done.case, cache=done.cache)
    with pytest.raises(InputError, match="the model before batch-0001 was purged"):
        rerun(done.folder, "batch-0001", done.case)


def test_retraining_is_repeated_without_the_model_before(make):
    ledger = make(methods=["retrain"], accept_exact=["INCONCLUSIVE", "DAMAGED", "LEAKS"])
    ledger.request("rows=a0003")
    ledger.run()
    purge(ledger.folder, ledger.case, cache=ledger.cache)
    found = rerun(ledger.folder, "batch-0001", ledger.case)
    assert (found.same_rows, found.same_model) == (True, True)
