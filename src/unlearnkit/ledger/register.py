"""Register: the entries of a ledger in one SQLite file, append-only."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from unlearnkit.core.errors import InputError
from unlearnkit.ledger.verify import BEFORE, FIRST, canonical, entry_digest, moves

FILE = "ledger.sqlite"
APPLICATION = 0x756E6C67
"""Marks a SQLite file as a ledger: ``unlg`` in ASCII."""

VERSION = 1

LEASE_SECONDS = 60.0
"""How long a worker that says nothing keeps the others waiting."""

MOST_BYTES = 2**20
"""Most bytes of the content of an entry."""

SCHEMA = f"""
CREATE TABLE entry (
    sequence INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER entry_stays BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entry_remains BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
CREATE TABLE request (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    received TEXT NOT NULL,
    deadline TEXT NOT NULL,
    entry INTEGER NOT NULL REFERENCES entry (sequence),
    latest INTEGER NOT NULL REFERENCES entry (sequence)
) STRICT;
CREATE INDEX request_by_state ON request (state, deadline);
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    token INTEGER NOT NULL,
    expires REAL NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class LedgerEntry:
    """One entry: what happened, when, and the digest that chains it to the one before."""

    sequence: int
    time: str
    """UTC, ISO 8601; never before that of the entry before."""

    kind: str
    body: Mapping[str, Any]
    previous: str
    digest: str

    def facts(self) -> dict[str, Any]:
        """Return the entry as it is exported."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class RequestState:
    """Where a request stands."""

    id: str
    state: str
    """``waiting``, ``running``, ``done``, ``rejected`` or ``not found``."""

    arrival: str
    deadline: str
    entry: int
    """Number of the entry that received it."""

    latest: int
    """Number of the entry that gave it its state."""


class RequestConflictError(InputError):
    """The id is that of another request."""


class UnknownRequestError(InputError):
    """There is no request of this id."""


class LedgerUnavailableError(InputError):
    """The file cannot be used now: the disk is full, or it is locked or damaged."""


class LostLeaseError(InputError):
    """Another worker has taken over: this one's result is not kept."""


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def stamp(time: datetime) -> str:
    """Return a time as entries hold it: UTC, to the microsecond, of one length."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


class Register:
    """The entries of a ledger, the state of each request, and who is at work.

    Safe for several processes on one machine, and killed at any moment: an entry and what follows
    from it are one transaction, and on the disk before the call returns.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime] = now) -> None:
        """Open the register of a ledger.

        Args:
            folder: The ledger.
            clock: Gives the time.

        Raises:
            InputError: If there is none, or it is damaged, or of a newer version.
        """
        self.path = folder / FILE
        self.clock = clock
        if not self.path.is_file():
            raise InputError(f"ledger: no ledger in {str(folder)!r}; unlearnkit ledger init")
        with self._errors():
            self._db = sqlite3.connect(
                self.path, timeout=60, isolation_level=None, check_same_thread=False
            )
            mark = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
        self._one = threading.RLock()
        if mark != APPLICATION or version > VERSION:
            self._db.close()
            raise InputError(
                f"ledger: {str(self.path)!r} is no ledger that this unlearnkit reads (version"
                f" {version}); install a newer one, or put back a copy"
            )

    @classmethod
    def create(
        cls, folder: Path, body: Mapping[str, Any], clock: Callable[[], datetime] = now
    ) -> Register:
        """Begin a register with its first entry, whole or not at all."""
        path = folder / FILE
        part = path.with_name(f".{FILE}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        try:
            db = sqlite3.connect(part, isolation_level=None)
            db.executescript(SCHEMA)
            db.close()
            with sqlite3.connect(part, isolation_level=None) as db:
                _insert(db, stamp(clock()), "ledger", body)
            db.execute("PRAGMA journal_mode = WAL")
            db.close()
            part.replace(path)
        except (sqlite3.Error, OSError) as e:
            raise InputError(f"ledger: cannot write {str(path)!r}: {e}; free space") from None
        return cls(folder, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def append(self, kind: str, body: Mapping[str, Any], lease: Lease | None = None) -> LedgerEntry:
        """Write an entry, and move the requests that it names.

        A clock that has gone back does not stop the ledger: the entry gets the time of the one
        before, and says by how many seconds the clock is behind.

        Args:
            kind: What happened.
            body: Its content, JSON-able; never data or names of persons.
            lease: Of a worker: nothing is written if another has taken over.

        Returns:
            The entry. A lease that is no longer the worker's is a ``LostLeaseError``; a state
            that a request cannot have, and a full disk, are an ``InputError``.
        """
        with self._transaction():
            if lease is not None:
                self._check_lease(lease)
            return self._append(kind, body)

    def receive(self, body: Mapping[str, Any], deadline: str) -> tuple[LedgerEntry, bool]:
        """Write a request, unless one of its id is there already.

        Args:
            body: Its content, with its ``id`` and the digest of what it says, ``content``.
            deadline: UTC, ISO 8601.

        Returns:
            The entry, and whether it is new.

        Raises:
            RequestConflictError: If a request of this id says something else.
        """
        with self._transaction():
            held = self._db.execute(
                "SELECT entry FROM request WHERE id = ?", (body["id"],)
            ).fetchone()
            if held is None:
                return self._append("request", {**body, "deadline": deadline}), True
            entry = self.entry(int(held[0]))
            if entry.body["content"] != body["content"]:
                raise RequestConflictError(
                    f"request: id {body['id']!r} is that of another request, received"
                    f" {entry.time}; give the new one an id of its own"
                )
            return entry, False

    def entry(self, sequence: int) -> LedgerEntry:
        """Return the entry of a number."""
        found = next(self._select("WHERE sequence = ?", (sequence,)), None)
        if found is None:
            raise InputError(f"ledger: no entry {sequence}; it was removed: put back a copy")
        return found

    def entries(self, kind: str | None = None) -> list[LedgerEntry]:
        """Return all entries, or those of a kind, in order."""
        return list(self._select("WHERE kind = coalesce(?, kind) ORDER BY sequence", (kind,)))

    def latest(self, kind: str) -> LedgerEntry | None:
        """Return the last entry of a kind; None where there is none."""
        return next(self._select("WHERE kind = ? ORDER BY sequence DESC LIMIT 1", (kind,)), None)

    def of_batch(self, kind: str, batch: str) -> list[LedgerEntry]:
        """Return the entries of a kind that belong to a batch, in order."""
        name = "id" if kind == "batch" else "batch"
        where = f"WHERE kind = ? AND json_extract(body, '$.{name}') = ? ORDER BY sequence"
        return list(self._select(where, (kind, batch)))

    def count(self, kind: str) -> int:
        """Return the number of entries of a kind."""
        with self._errors():
            found = self._db.execute("SELECT count(*) FROM entry WHERE kind = ?", (kind,))
            return int(found.fetchone()[0])

    def arrivals(self, *states: str) -> Iterator[Mapping[str, Any]]:
        """Yield what the requests in these states said when they arrived, in order."""
        with self._errors():
            found = self._db.execute(
                "SELECT e.body FROM request r JOIN entry e ON e.sequence = r.entry WHERE r.state IN"
                " (SELECT value FROM json_each(?)) ORDER BY e.sequence",
                (json.dumps(states),),
            ).fetchall()
        for (body,) in found:
            yield json.loads(body)

    def head(self) -> LedgerEntry:
        """Return the last entry."""
        return next(self._select("ORDER BY sequence DESC LIMIT 1", ()))

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield number and content of each entry as the file holds it."""
        with self._errors():
            yield from self._db.execute("SELECT sequence, body FROM entry ORDER BY sequence")

    def request(self, name: str) -> RequestState:
        """Return where a request stands; an unknown id is an error."""
        found = self.find_request(name)
        if found is None:
            raise UnknownRequestError(
                f"request: no id {name!r}; unlearnkit ledger status lists them"
            )
        return found

    def find_request(self, name: str) -> RequestState | None:
        """Return where a request stands; None where there is none of this id."""
        return next(iter(self._requests("WHERE id = ?", (name,))), None)

    def requests(self, *states: str) -> list[RequestState]:
        """Return the requests in these states, or all, those of the nearest deadline first."""
        return self._requests(
            "WHERE ? = '[]' OR state IN (SELECT value FROM json_each(?)) ORDER BY deadline, entry",
            (json.dumps(states),) * 2,
        )

    def counts(self) -> dict[str, int]:
        """Return how many requests there are in each state."""
        with self._errors():
            rows = self._db.execute("SELECT state, count(*) FROM request GROUP BY state")
            return {str(state): int(count) for state, count in rows}

    def take_lease(self, seconds: float = LEASE_SECONDS) -> Lease | None:
        """Return the right to work on the model; None while another worker has it.

        It is another's until it runs out, unless its process was on this machine and is gone.
        """
        with self._transaction():
            time = self.clock().timestamp()
            held = self._db.execute("SELECT holder, token, expires FROM lease").fetchone()
            if held is not None and held[2] > time and not _gone(held[0]):
                return None
            token = 1 if held is None else int(held[1]) + 1
            self._db.execute(
                "REPLACE INTO lease VALUES ('worker', ?, ?, ?)", (_here(), token, time + seconds)
            )
            return Lease(self, token, seconds)

    def worker(self) -> str | None:
        """Return who is at work, as host and process; None where nobody is."""
        with self._errors():
            held = self._db.execute("SELECT holder, expires FROM lease").fetchone()
        if held is None or held[1] <= self.clock().timestamp() or _gone(held[0]):
            return None
        return str(held[0])

    def renew(self, lease: Lease) -> None:
        """Let a lease last longer, from now."""
        with self._transaction():
            self._check_lease(lease)
            time = self.clock().timestamp() + lease.seconds
            self._db.execute("UPDATE lease SET expires = ?", (time,))

    def give_back(self, lease: Lease) -> None:
        """End a lease, if it is still the worker's."""
        with self._transaction():
            self._db.execute("UPDATE lease SET expires = 0 WHERE token = ?", (lease.token,))

    def _check_lease(self, lease: Lease) -> None:
        held = self._db.execute("SELECT token FROM lease").fetchone()
        if held is None or held[0] != lease.token:
            raise LostLeaseError(
                "ledger: another worker has taken over this model; what this one did is not kept"
            )

    def _append(self, kind: str, body: Mapping[str, Any]) -> LedgerEntry:
        last = self.head()
        time = stamp(self.clock())
        if time < last.time:
            behind = datetime.fromisoformat(last.time) - datetime.fromisoformat(time)
            body = {**body, "clock_behind_seconds": round(behind.total_seconds(), 6)}
            time = last.time
        entry = _insert(self._db, time, kind, body, last)
        for name, state in moves(kind, body):
            if BEFORE[state] == (None,):
                self._db.execute(
                    "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)",
                    (name, state, time, body["deadline"], entry.sequence, entry.sequence),
                )
                continue
            moved = self._db.execute(
                "UPDATE request SET state = ?, latest = ? WHERE id = ? AND state IN"
                " (SELECT value FROM json_each(?))",
                (state, entry.sequence, name, json.dumps(BEFORE[state])),
            )
            if moved.rowcount != 1:
                raise InputError(
                    f"request: {name!r} cannot be {state} now: another worker was sooner, or it is"
                    " not there"
                )
        return entry

    def _select(self, where: str, values: tuple[Any, ...]) -> Iterator[LedgerEntry]:
        with self._errors():
            rows = self._db.execute(
                f"SELECT sequence, time, kind, body, previous, digest FROM entry {where}", values
            ).fetchall()
        for sequence, time, kind, body, previous, digest in rows:
            try:
                content = json.loads(body)
            except ValueError:
                content = {"damaged": True}
            yield LedgerEntry(sequence, time, kind, content, previous, digest)

    def _requests(self, where: str, values: tuple[Any, ...]) -> list[RequestState]:
        with self._errors():
            rows = self._db.execute(
                f"SELECT id, state, received, deadline, entry, latest FROM request {where}", values
            )
            return [RequestState(*row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._one, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise LedgerUnavailableError(
                f"ledger: cannot use {str(self.path)!r}: {e}; nothing was changed: free space, or"
                " put back a copy, and try again"
            ) from None


class Lease:
    """The right of one worker to work on the model; it renews itself while it is held."""

    def __init__(self, register: Register, token: int, seconds: float) -> None:
        self.register = register
        self.token = token
        self.seconds = seconds
        self._end = threading.Event()
        self._beat = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._beat.join()
        self.register.give_back(self)

    def _renew(self) -> None:
        while not self._end.wait(self.seconds / 3):
            try:
                self.register.renew(self)
            except InputError:  # lost, or the disk is full: the next entry says so
                return


def _insert(
    db: sqlite3.Connection,
    time: str,
    kind: str,
    body: Mapping[str, Any],
    last: LedgerEntry | None = None,
) -> LedgerEntry:
    text = canonical(body).decode()
    if len(text) > MOST_BYTES:
        raise InputError(
            f"ledger: an entry has at most {MOST_BYTES:,} bytes, got {len(text):,}; name fewer"
            " subjects in a request"
        )
    number = 1 if last is None else last.sequence + 1
    previous = FIRST if last is None else last.digest
    fields = {
        "sequence": number, "time": time, "kind": kind, "body": json.loads(text),
        "previous": previous,
    }  # fmt: skip
    entry = LedgerEntry(**fields, digest=entry_digest(fields))
    db.execute(
        "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)",
        (number, time, kind, text, previous, entry.digest),
    )
    return entry


def _here() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _gone(holder: str) -> bool:
    """Return whether a holder's process was on this machine and is no more."""
    host, _, pid = holder.rpartition(" ")
    if host != socket.gethostname() or os.name == "nt":
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:
        return False
    return False
