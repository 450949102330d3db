"""Killed at any moment: no request is lost or answered twice, and every certificate verifies."""

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter

import pytest

from tests.ledger.running_service import Running, send_until_answered
from unlearnkit.core.errors import InputError

pytest.importorskip("cryptography")

fork = multiprocessing.get_context("fork")
REQUESTS = 24


def client(ledger):
    """Send every request; those that are there already are there once."""
    for i in range(REQUESTS):
        ledger.request(f"rows=a{i:04}", id=f"r{i}")


def worker(ledger):
    """Answer what is due, until nothing is left."""
    while True:
        with contextlib.suppress(InputError):  # another worker is at work
            if ledger.run() is None and set(ledger.states().values()) <= {"done"}:
                return
        time.sleep(0.01)


def kill_at_random(ledger, kills, longest):
    """Start clients and workers, and kill each after a random time; count what was cut off.

    Args:
        ledger: Without requests.
        kills: How many times.
        longest: The longest time, in times that one batch takes on this machine now.
    """
    draw, cut = random.Random(0), Counter()
    ledger.request("rows=a0059", id="first")
    start = time.perf_counter()
    ledger.run()
    longest *= time.perf_counter() - start
    for k in range(kills):
        work = [worker, worker, client][k % 3 :] if k % 3 < 2 else [client]
        running = [fork.Process(target=w, args=(ledger,)) for w in work]
        for p in running:
            p.start()
        time.sleep(draw.uniform(0, longest))
        for p in running:
            os.kill(p.pid, signal.SIGKILL)
            p.join()
        cut[ledger.entries()[-1].kind] += 1
    return cut


def check_nothing_is_lost(ledger):
    client(ledger)
    while ledger.run() is not None:
        pass
    states = {n: s for n, s in ledger.states().items() if not n.startswith("s")}  # not nobody's
    assert set(states) - {"first"} == {f"r{i}" for i in range(REQUESTS)}
    assert set(states.values()) == {"done"}
    done = [r for e in ledger.entries("certificate") for r in e.body["requests"]]
    assert sorted(done) == sorted(states)
    assert sum(e.body["rows"] for e in ledger.entries("batch")) == len(states)
    assert ledger.check() == []


@pytest.mark.slow
def test_ten_kills_lose_nothing(make):
    ledger = make(batch={"most": 4})
    kill_at_random(ledger, 10, 1.0)
    check_nothing_is_lost(ledger)


@pytest.mark.exhaustive
@pytest.mark.parametrize("longest", [1.0, 3.0])
def test_a_hundred_kills_lose_nothing(make, longest, capsys):
    ledger = make(batch={"most": 1})
    cut = kill_at_random(ledger, 100, longest)
    with capsys.disabled():
        sys.stdout.write(f"\n{cut.total()} kills; the last entry then: {dict(cut)}\n")
    assert len(cut) > 1  # at several steps
    check_nothing_is_lost(ledger)


def sender(running, out):
    """Send new requests for ever, each until it is confirmed; some are for rows that are there."""
    name = f"s{os.getpid()}"
    with out.open("a") as log:
        for n in itertools.count():
            known = n % 4 == 0
            key = f"r{(os.getpid() + n // 4) % REQUESTS}" if known else f"{name}-{n}"
            row = f"a{int(key[1:]):04}" if known else f"nobody-{n}"
            said = send_until_answered(running, key, {"rows": [row]})
            log.write(json.dumps(said) + "\n")
            log.flush()
            time.sleep(0.02)


def wait_for_one_more(out, seconds=120):
    """Wait until a sender has one more answer."""
    size = out.stat().st_size if out.exists() else 0
    end = time.monotonic() + seconds
    while not out.exists() or out.stat().st_size == size:
        assert time.monotonic() < end
        time.sleep(0.01)


def kill_in_turn(ledger, out, kills, longest):
    """Kill service, worker and sender in turn at random times, each while the others go on."""
    draw = random.Random(1)
    with Running(ledger.folder) as running:
        work = {worker: (ledger,), sender: (running, out)}
        others = {w: fork.Process(target=w, args=a) for w, a in work.items()}
        for p in others.values():
            p.start()
        for k in range(kills):
            wait_for_one_more(out)
            time.sleep(draw.uniform(0, longest))
            victim = [None, worker, sender][k % 3]
            if victim is None:
                running.kill()
                running.start()
                continue
            others[victim].kill()
            others[victim].join()
            others[victim] = fork.Process(target=victim, args=work[victim])
            others[victim].start()
        wait_for_one_more(out)
        for p in others.values():
            p.kill()
            p.join()


def check_all_that_was_confirmed_is_there_once(ledger, out, kills):
    confirmed = [json.loads(line) for line in out.read_text().splitlines()]
    entries = ledger.entries("request")
    held = {e.body["id"]: e.digest for e in entries}
    assert len(held) == len(entries)
    assert len(confirmed) > kills
    assert [c for c in confirmed if held.get(c["id"]) != c["digest"]] == []
    check_nothing_is_lost(ledger)


@pytest.mark.slow
def test_kills_of_service_worker_and_sender_lose_nothing(make, tmp_path):
    ledger = make(batch={"most": 20})
    kill_in_turn(ledger, tmp_path / "confirmed", 6, 0.4)
    check_all_that_was_confirmed_is_there_once(ledger, tmp_path / "confirmed", 6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("longest", [0.3, 2.0])
def test_a_hundred_kills_over_service_worker_and_sender_lose_nothing(make, tmp_path, longest):
    ledger = make(batch={"most": 20})
    kill_in_turn(ledger, tmp_path / "confirmed", 100, longest)
    check_all_that_was_confirmed_is_there_once(ledger, tmp_path / "confirmed", 100)


@pytest.mark.slow
def test_two_workers_at_once_answer_each_request_once(make):
    ledger = make(batch={"most": 6})
    client(ledger)
    both = [fork.Process(target=worker, args=(ledger,)) for _ in range(2)]
    for p in both:
        p.start()
    for p in both:
        p.join(60)
    check_nothing_is_lost(ledger)
    assert len(ledger.entries("batch")) == 4


STOPS = ["batch", "attempt", "certificate"]


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_each_step_of_a_batch_is_made_good(ledger, kind, when):
    """The process ends right before or right after an entry is written."""
    ledger.request("rows=a0003", id="one")

    def stopped():
        from unlearnkit.ledger.register import Register

        whole = Register.append

        def append(self, what, *rest):
            if what == kind and when == "before":
                os._exit(9)
            entry = whole(self, what, *rest)
            if what == kind:
                os._exit(9)
            return entry

        Register.append = append
        ledger.run()

    p = fork.Process(target=stopped)
    p.start()
    p.join(60)
    assert p.exitcode == 9
    ledger.run()
    assert ledger.states() == {"one": "done"}
    for one in STOPS:
        assert len(ledger.entries(one)) == 1
    assert (ledger.folder / "current.json").read_text().count("batch-0001") == 1
    assert ledger.check() == []
