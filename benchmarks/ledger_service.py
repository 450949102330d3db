"""The service of a ledger: requests of many clients at once, and states read meanwhile."""

import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measure import Fact, skipped
from unlearnkit.testing import toy_case

CLIENTS, EACH = 8, 125
ENTRIES = 10_000
fork = multiprocessing.get_context("fork")


def run() -> Iterator[Fact]:
    """Yield the time of 1,000 requests, the waits for states, and the time of a verification."""
    what = f"{CLIENTS * EACH:,} requests of {CLIENTS} clients at once, over HTTP"
    if not (find_spec("fastapi") and find_spec("cryptography")):
        yield skipped(what, "the extra [service] is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ledger"
        make_ledger(place, Path(folder) / "cache")
        port, process = start(place)
        try:
            before, spent = os.getloadavg()[0], -processor_seconds(process.pid)
            seconds, waits = load(port)
            spent += processor_seconds(process.pid)
        finally:
            process.terminate()
            process.wait()
        about = f"load of the machine {before:.1f} on {os.cpu_count()} cores"
        yield Fact(what, seconds, "s", goal=30, how=f"each on disk before its answer; {about}")
        calls = CLIENTS * EACH + len(waits)
        yield Fact(
            "processor time of the service for a call", 1000 * spent / calls, "ms",
            how=f"{calls:,} calls, those that read among them",
        )  # fmt: skip
        low, middle, high = (1000 * w for w in statistics.quantiles(waits, n=4))
        yield Fact(
            "state of a request meanwhile, median",
            middle,
            "ms",
            low,
            high,
            how=f"{len(waits)} calls",
        )
        slowest = 1000 * statistics.quantiles(waits, n=100)[98]
        yield Fact("state of a request meanwhile, p99", slowest, "ms", goal=200, how=about)
        yield verified(place)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far; nan where the system does not say."""
    place = Path(f"/proc/{pid}/stat")
    if not place.exists():
        return float("nan")
    fields = place.read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_ledger(place: Path, cache: Path) -> None:
    """Make a ledger for a model that is trained in a blink."""
    from unlearnkit.cache import Cache
    from unlearnkit.ledger.new_ledger import create_ledger
    from unlearnkit.tasks.classification import Classification

    create_ledger(place, "toy", toy_case(Classification(3)), cache=Cache(cache)).close()


def start(place: Path) -> tuple[int, subprocess.Popen[str]]:
    """Return port and process of a service that answers."""
    words = [sys.executable, "-m", "unlearnkit", "ledger", "serve", "--port", "0", "--ledger"]
    process = subprocess.Popen([*words, str(place)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    port = int(process.stderr.readline().rpartition(":")[2])
    call(port).close()
    return port, process


def call(port: int) -> http.client.HTTPConnection:
    """Return a connection that has been answered once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/health")
    connection.getresponse().read()
    return connection


def load(port: int) -> tuple[float, list[float]]:
    """Return the seconds until all requests are confirmed, and the waits of one that reads."""
    gate, done, out = fork.Barrier(CLIENTS + 2), fork.Event(), fork.Queue()
    senders = [fork.Process(target=send, args=(port, i, gate)) for i in range(CLIENTS)]
    reader = fork.Process(target=read, args=(port, gate, done, out))
    for p in (*senders, reader):
        p.start()
    gate.wait()
    begin = time.perf_counter()
    for p in senders:
        p.join()
        assert p.exitcode == 0
    seconds = time.perf_counter() - begin
    done.set()
    waits: list[float] = out.get()
    reader.join()
    return seconds, waits


def send(port: int, part: int, gate: "multiprocessing.synchronize.Barrier") -> None:
    """Send the requests of one client, one after another."""
    connection = call(port)
    gate.wait()
    for i in range(EACH):
        head = {"Content-Type": "application/json", "Idempotency-Key": f"{part}-{i}"}
        body = json.dumps({"rows": [f"p{part}-{i}"]})
        connection.request("POST", "/requests", body, head)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 202


def read(
    port: int,
    gate: "multiprocessing.synchronize.Barrier",
    done: "multiprocessing.synchronize.Event",
    out: "multiprocessing.Queue[list[float]]",
) -> None:
    """Ask for one state after another; hand the waits over at the end."""
    connection, waits, i = call(port), [], 0
    gate.wait()
    while not done.is_set():
        start = time.perf_counter()
        connection.request("GET", f"/requests/{i % CLIENTS}-{i // CLIENTS % EACH}")
        connection.getresponse().read()
        waits.append(time.perf_counter() - start)
        i += 1
    out.put(waits)


def verified(place: Path) -> Fact:
    """Return the time in which a ledger of many entries is verified."""
    from unlearnkit.ledger.ledger_check import check
    from unlearnkit.ledger.register import Register

    with Register(place) as register, register._transaction():
        for i in range(register.head().sequence, ENTRIES):
            name = f"more-{i}"
            body = {
                "id": name, "kind": "rows", "subjects": [name], "subject_key": "", "reason": "",
                "content": name, "deadline": "2126-01-01T00:00:00.000000+00:00",
            }  # fmt: skip
            register._append("request", body)
    begin = time.process_time()
    wrong = check(place)
    assert wrong == []
    spent = time.process_time() - begin
    return Fact(f"verify {ENTRIES:,} entries", spent, "s", goal=5, how="processor time")
