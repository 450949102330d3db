"""Entries are chained, never changed, written once; one worker works at a time."""

import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from unlearnkit.core.errors import InputError

pytest.importorskip("cryptography")

from unlearnkit.ledger.register import LostLeaseError, Register
from unlearnkit.ledger.verify import check_ledger, entry_digest


def body(name, content="x"):
    return {
        "id": name, "kind": "rows", "subjects": ["0"], "subject_key": "k", "reason": "",
        "content": content,
    }  # fmt: skip


FAR = "2126-01-01T00:00:00.000000+00:00"


class Clock:
    """A clock that stands where a test puts it."""

    def __init__(self):
        self.time = datetime(2126, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.time


def test_each_entry_names_the_digest_of_the_one_before(ledger):
    with ledger.open() as register:
        for name in "abc":
            register.receive(body(name), FAR)
    entries = ledger.entries()
    assert [e.previous for e in entries[1:]] == [e.digest for e in entries[:-1]]
    assert [e.digest for e in entries] == [entry_digest(e.facts()) for e in entries]


@pytest.mark.parametrize("change", ["UPDATE entry SET body = '{}'", "DELETE FROM entry"])
def test_the_file_itself_refuses_to_change_an_entry(ledger, change):
    db = sqlite3.connect(ledger.folder / "ledger.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="entries are never"):
        db.execute(change)
    db.close()


def test_a_request_sent_twice_is_there_once(ledger):
    first = ledger.request("rows=a0003,a0004", id="one", reason="r")
    second = ledger.request("rows=a0004,a0003", id="one", reason="r")
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0]
    assert len(ledger.entries("request")) == 1


@pytest.mark.parametrize(
    ("forget", "more"),
    [("rows=a0005", {}), ("rows=a0003", {"reason": "other"}), ("group=a0003", {})],
)
def test_an_id_of_another_request_is_refused(ledger, forget, more):
    ledger.request("rows=a0003", id="one")
    with pytest.raises(InputError, match="id 'one' is that of another request, received"):
        ledger.request(forget, id="one", **more)


def test_a_clock_that_goes_back_is_recorded_and_the_order_of_time_is_kept(ledger):
    clock = Clock()
    with ledger.open(clock) as register:
        register.receive(body("one"), FAR)
        clock.time -= timedelta(hours=2)
        entry, _ = register.receive(body("two"), FAR)
    before = ledger.entries()[-2]
    assert entry.time == before.time
    assert entry.body["clock_behind_seconds"] == 7200
    assert ledger.check() == []


def test_of_two_workers_one_gets_the_lease(ledger):
    with ledger.open() as one, ledger.open() as two:
        lease = one.take_lease()
        with lease:
            assert two.take_lease() is None
            assert two.worker() is not None
        assert two.worker() is None
        assert two.take_lease() is not None


def test_a_second_worker_is_refused_with_the_name_of_the_first(ledger):
    ledger.request("rows=a0003")
    with (
        ledger.open() as register,
        register.take_lease(),
        pytest.raises(InputError, match=r"another worker is at work \(\S+ \d+\)"),
    ):
        ledger.run()
    assert ledger.run().state == "done"


def test_a_lease_that_ran_out_is_taken_over_and_its_first_holder_writes_nothing_more(ledger):
    clock = Clock()
    with ledger.open(clock) as one, ledger.open(clock) as two:
        lost = one.take_lease(60)
        clock.time += timedelta(seconds=61)
        assert two.take_lease(60) is not None
        with pytest.raises(LostLeaseError, match="another worker has taken over"):
            one.append("policy", {"digest": ""}, lost)
    assert [e.kind for e in ledger.entries()] == ["ledger"]


def test_the_lease_of_a_dead_process_is_free_at_once(ledger):
    code = (
        "import sys, os; from pathlib import Path; from unlearnkit.ledger.register import Register;"
        "assert Register(Path(sys.argv[1])).take_lease(3600); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(ledger.folder)], check=True)
    with ledger.open() as register:
        assert register.take_lease() is not None


def test_a_lease_that_is_held_renews_itself(ledger):
    with ledger.open() as one, ledger.open() as two, one.take_lease(0.3):
        threading.Event().wait(0.7)
        assert two.take_lease() is None


@pytest.mark.parametrize(
    ("kind", "state"), [("certificate", "done"), ("rejected", "rejected"), ("batch", "running")]
)
def test_a_request_cannot_skip_a_state_or_be_answered_twice(ledger, kind, state):
    with ledger.open() as register:
        register.receive(body("one"), FAR)
        register.append("batch", {"id": "b", "requests": ["one"]})
        if kind == "batch":
            wrong = register
        else:
            register.append(kind, {"batch": "b", "requests": ["one"]})
            wrong = register
        with pytest.raises(InputError, match=f"'one' cannot be {state} now"):
            wrong.append(kind, {"id": "b", "batch": "b", "requests": ["one"]})


def test_ten_thousand_entries_are_verified_in_five_seconds(ledger):
    from unlearnkit.ledger.register import _insert

    with ledger.open() as register:
        last = register.head()
        with register._transaction():
            for i in range(10_000):
                more = {**body(f"r{i}"), "deadline": FAR}
                last = _insert(register._db, FAR, "request", more, last)
                register._db.execute(
                    "INSERT INTO request VALUES (?, 'waiting', ?, ?, ?, ?)",
                    (f"r{i}", FAR, FAR, last.sequence, last.sequence),
                )
    start = time.process_time()  # of this process: others may have the processor meanwhile
    assert ledger.check() == []
    assert time.process_time() - start < 5
    entries = [e.facts() for e in ledger.entries()]
    entries[5000]["body"] = {**entries[5000]["body"], "reason": "y"}
    assert check_ledger(entries, {}) == ["entry 5001: changed after it was written"]


def test_a_file_of_another_program_is_refused(tmp_path):
    sqlite3.connect(tmp_path / "ledger.sqlite").execute("CREATE TABLE a (b)").connection.close()
    with pytest.raises(InputError, match="is no ledger that this unlearnkit reads"):
        Register(tmp_path)


def test_a_place_without_a_ledger_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"no ledger in '.*'; unlearnkit ledger init"):
        Register(tmp_path)


FULL = """
import resource, signal, sys
from pathlib import Path
from unlearnkit.core.errors import InputError
from unlearnkit.ledger.register import Register
from tests.ledger.test_register import body, FAR
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
register = Register(Path(sys.argv[1]))
size = register.path.stat().st_size + 40_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
kept = 0
try:
    for i in range(1000):
        register.receive(body(f"r{i}"), FAR)
        kept += 1
except InputError as e:
    print(kept, e)
"""


def test_a_full_disk_is_one_line_and_loses_nothing_that_was_confirmed(ledger):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(ledger.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    kept, _, message = done.stdout.partition(" ")
    assert "nothing was changed: free space" in message, done.stderr
    assert 0 < int(kept) < 1000
    assert len(ledger.states()) == int(kept)
    assert ledger.check() == []
    ledger.request("rows=a0003", id="after")
    assert ledger.states()["after"] == "waiting"
