"""A service in a process of its own, and a client that sends until it is answered."""

import contextlib
import http.client
import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

fork = multiprocessing.get_context("fork")


class Running:
    """A service that can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        from unlearnkit.ledger.service.server import serve

        self.process = fork.Process(target=serve, args=(self.folder, "127.0.0.1", self.port))
        self.process.start()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def wait(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError), contextlib.closing(self.connect()) as connection:
                if call(connection, "GET", "/health")[0] == 200:
                    return self
            time.sleep(0.02)
        raise TimeoutError(seconds)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def call(connection, method, path, body=None, key=None):
    """Return status and content of an answer."""
    head = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    connection.request(method, path, None if body is None else json.dumps(body), head)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def send_until_answered(running, key, body):
    """Send a request until an answer comes, as a careful sender does; return the answer."""
    while True:
        connection = running.connect()
        try:
            status, said = call(connection, "POST", "/requests", body, key)
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
            continue
        finally:
            connection.close()
        assert status == 202, said
        return said
