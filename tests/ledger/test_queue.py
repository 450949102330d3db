"""Eight processes put a thousand requests into the queue at once."""

import multiprocessing
import statistics
import time

import pytest

pytest.importorskip("cryptography")

PROCESSES, EACH = 8, 125


def send(ledger, part, out):
    from unlearnkit.ledger.deletion_request import receive
    from unlearnkit.ledger.policy import read_policy

    policy, waits = read_policy(ledger.folder), []
    with ledger.open() as register:
        for i in range(EACH):
            receive(ledger.folder, register, policy, f"rows=p{part}-{i}", id=f"{part}-{i}")
            receive(ledger.folder, register, policy, f"rows=p{part}-{i}", id=f"{part}-{i}")
            start = time.perf_counter()
            register.request(f"{part}-{i}")
            register.counts()
            waits.append(time.perf_counter() - start)
    out.put(waits)


@pytest.mark.slow
def test_a_thousand_requests_of_eight_processes_are_there_once_each_in_time(ledger):
    fork = multiprocessing.get_context("fork")
    out = fork.Queue()
    start = time.perf_counter()
    parts = [fork.Process(target=send, args=(ledger, p, out)) for p in range(PROCESSES)]
    for p in parts:
        p.start()
    waits = [w for _ in parts for w in out.get(timeout=60)]
    for p in parts:
        p.join()
    seconds = time.perf_counter() - start
    slowest = statistics.quantiles(waits, n=100)[98]
    assert len(ledger.states()) == PROCESSES * EACH
    assert len(ledger.entries("request")) == PROCESSES * EACH
    assert ledger.check() == []
    assert seconds < 30
    assert slowest < 0.2
