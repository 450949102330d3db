"""Results store: runs, measurements and facts in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, Self

from filelock import FileLock

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, check_writable

Status = Literal["done", "failed", "cancelled"]

MIGRATIONS = (
    """
    CREATE TABLE run (
        key TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        case_name TEXT NOT NULL,
        request TEXT NOT NULL,
        method TEXT NOT NULL,
        settings TEXT NOT NULL,
        seed INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('done', 'failed', 'cancelled')),
        error TEXT NOT NULL,
        started TEXT NOT NULL,
        seconds REAL,
        forward INTEGER,
        backward INTEGER,
        folder TEXT NOT NULL,
        version TEXT NOT NULL
    ) STRICT;
    CREATE TABLE measurement (
        run TEXT NOT NULL REFERENCES run (key) ON DELETE CASCADE,
        metric TEXT NOT NULL,
        who TEXT NOT NULL,
        value REAL,
        low REAL,
        high REAL,
        note TEXT NOT NULL,
        PRIMARY KEY (run, metric, who)
    ) STRICT;
    CREATE TABLE curve (
        run TEXT NOT NULL REFERENCES run (key) ON DELETE CASCADE,
        name TEXT NOT NULL,
        x REAL NOT NULL,
        y REAL,
        PRIMARY KEY (run, name, x)
    ) STRICT;
    """,
    """
    CREATE TABLE fact (
        run TEXT NOT NULL REFERENCES run (key) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (run, name)
    ) STRICT;
    """,
    """
    CREATE TABLE plan (
        study TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        content TEXT NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE measurement ADD COLUMN examples INTEGER;",
)
"""The n-th script takes a store from version n to n + 1; never edit one that was released."""


_SMALLEST = 512
"""Bytes of the smallest SQLite database: one page."""

APPLICATION = 0x756E6B74
"""Marks a SQLite file as a store: ``unkt`` in ASCII; stores of version 0.1 have no mark."""


@dataclass(frozen=True)
class Run:
    """One thing that was tried, whatever came of it."""

    key: str
    """Digest of every input: the same key is the same run."""

    kind: str
    """``unlearn``, ``audit`` or ``study``."""

    case_name: str
    request: str
    method: str
    seed: int
    status: Status
    started: str
    """UTC, ISO 8601."""

    settings: Mapping[str, object] = field(default_factory=dict)
    error: str = ""
    seconds: float | None = None
    forward: int | None = None
    """Rows that went forward through a model."""

    backward: int | None = None
    """Rows that a gradient was taken of."""

    folder: str = ""
    version: str = ""


@dataclass(frozen=True)
class Measurement:
    """One number about one model of a run; None where it is undefined, and the note says why."""

    metric: str
    who: str
    """``unlearned``, ``original``, or ``oracle 0`` and so on."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    examples: int | None = None
    """Rows behind the number; None where it is not known, as in stores before version 4."""


class RunValue(NamedTuple):
    """One number of one run, as it is read in bulk."""

    run: str
    metric: str
    who: str
    value: float | None
    examples: int | None
    """Rows behind the number, as in ``Measurement``."""


class Store:
    """Runs, their measurements and facts in one SQLite file.

    Safe for several processes on one machine. A run is put whole or not at all, and once: putting a
    key again replaces what it had, but a failed or cancelled run never replaces one that is done.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._errors():
            if not self.path.exists():
                self._make()
            self._check_whole()
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def save_run(
        self,
        run: Run,
        measurements: Iterable[Measurement] = (),
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        """Keep a run with its measurements and its facts, by name.

        Returns:
            Whether it was kept: a failed or cancelled run never replaces one that is done, and of
            the ranks of a run the first alone keeps it.
        """
        from unlearnkit.core.ranks import is_first  # needs torch, which reading does not

        if not is_first():
            return False
        row = {f.name: getattr(run, f.name) for f in fields(Run)}
        row["settings"] = json.dumps(dict(run.settings), sort_keys=True)
        with self._errors(), self._transaction():
            held = self._db.execute("SELECT status FROM run WHERE key = ?", (run.key,)).fetchone()
            if held == ("done",) and run.status != "done":
                return False
            self._db.execute("DELETE FROM run WHERE key = ?", (run.key,))
            marks = ", ".join(f":{name}" for name in row)
            self._db.execute(f"INSERT INTO run ({', '.join(row)}) VALUES ({marks})", row)
            self._db.executemany(
                "INSERT INTO measurement VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(run.key, *astuple(m)) for m in measurements],
            )
            self._db.executemany(
                "INSERT INTO fact VALUES (?, ?, ?)",
                [(run.key, name, value) for name, value in (facts or {}).items()],
            )
        return True

    def save_plan(self, study: str, digest: str, content: str) -> None:
        """Keep the plan of a study as text, in place of the one that it had."""
        with self._errors(), self._transaction():
            self._db.execute("REPLACE INTO plan VALUES (?, ?, ?)", (study, digest, content))

    def plan(self, study: str, digest: str) -> str | None:
        """Return the plan of a study as text; None where there is none of this digest."""
        with self._errors():
            found = self._db.execute(
                "SELECT content FROM plan WHERE study = ? AND digest = ?", (study, digest)
            ).fetchone()
        return None if found is None else str(found[0])

    def runs(self, kind: str | None = None) -> list[Run]:
        """Return every run, or every run of a kind, oldest first."""
        names = [f.name for f in fields(Run)]
        with self._errors():
            rows = self._db.execute(
                f"SELECT {', '.join(names)} FROM run WHERE kind = coalesce(?, kind)"
                " ORDER BY started, key",
                (kind,),
            )
            held = [dict(zip(names, row, strict=True)) for row in rows]
        return [Run(**{**h, "settings": json.loads(h["settings"])}) for h in held]

    def statuses(self, kind: str) -> dict[str, tuple[Status, str]]:
        """Return how each run of a kind ended and when it was started, by key."""
        with self._errors():
            rows = self._db.execute("SELECT key, status, started FROM run WHERE kind = ?", (kind,))
            return {key: (status, started) for key, status, started in rows}

    def status(self, key: str) -> tuple[Status, str] | None:
        """Return how a run ended and when it was started; None when there is no such run."""
        with self._errors():
            found = self._db.execute(
                "SELECT status, started FROM run WHERE key = ?", (key,)
            ).fetchone()
        return None if found is None else (found[0], found[1])

    def measurements(self, key: str) -> list[Measurement]:
        """Return the numbers of a run, by metric and model."""
        with self._errors():
            rows = self._db.execute(
                "SELECT metric, who, value, low, high, note, examples FROM measurement"
                " WHERE run = ? ORDER BY metric, who",
                (key,),
            )
            return [Measurement(*row) for row in rows]

    def statuses_and_errors(self, keys: Iterable[str]) -> dict[str, tuple[Status, str]]:
        """Return status and error of the runs of these keys that are there, by key."""
        with self._errors():
            rows = self._db.execute(
                "SELECT key, status, error FROM run WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            )
            return {key: (status, error) for key, status, error in rows}

    def fact_by_run(self, keys: Iterable[str], name: str) -> dict[str, str]:
        """Return one fact of each of these runs that has it, by key."""
        with self._errors():
            return dict(
                self._db.execute(
                    "SELECT run, fact.value FROM json_each(?) AS k JOIN fact ON run = k.value"
                    " WHERE name = ?",
                    (json.dumps(list(keys)), name),
                )
            )

    def run_values(self, keys: Iterable[str], metrics: Iterable[str]) -> Iterator[RunValue]:
        """Yield what was measured in these runs by these metrics; nothing else is read."""
        with self._errors():
            yield from map(
                RunValue._make,
                self._db.execute(
                    "SELECT run, metric, who, value, examples FROM measurement"
                    " WHERE run IN (SELECT value FROM json_each(?))"
                    " AND metric IN (SELECT value FROM json_each(?))",
                    (json.dumps(list(keys)), json.dumps(list(metrics))),
                ),
            )

    def facts(self, key: str) -> dict[str, str]:
        """Return what else is known of a run, by name."""
        with self._errors():
            return dict(
                self._db.execute("SELECT name, value FROM fact WHERE run = ? ORDER BY name", (key,))
            )

    @classmethod
    def check(cls, path: Path) -> None:
        """Refuse a place where no run could be kept, before long work; nothing is made."""
        check_writable(path, "store")
        if path.exists():
            with cls(path) as store:
                store.check_writable()

    def check_writable(self) -> None:
        """Refuse a store into which nothing can be put: one that is read-only."""
        with self._errors(), self._transaction():
            pass

    def _make(self) -> None:
        """Make a new store: under another name first, so that no half of one is ever here."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            if self.path.exists():
                return
            part = self.path.with_name(f".{self.path.name}.new")
            for old in (
                part,
                part.with_name(f"{part.name}-wal"),
                part.with_name(f"{part.name}-shm"),
            ):
                old.unlink(missing_ok=True)
            with closing(sqlite3.connect(part, isolation_level=None)) as db:
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                _migrate(db)
                db.execute("PRAGMA journal_mode = WAL")
            part.replace(self.path)

    def _open(self) -> None:
        """Bring the file to the newest version."""
        self._db.execute("PRAGMA foreign_keys = ON")
        try:
            self._check_ours()
        except sqlite3.DatabaseError as e:
            if e.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise self._not_ours("is no database") from None
            raise
        have = self._version()
        if have == len(MIGRATIONS):
            return
        if have > len(MIGRATIONS):
            raise InputError(
                f"store: {str(self.path)!r} has version {have}, this unlearnkit knows up to"
                f" {len(MIGRATIONS)}; install a newer unlearnkit"
            )
        with FileLock(self._lock):
            _migrate(self._db)

    def _check_ours(self) -> None:
        """Refuse a file of another program; nothing is ever added to one."""
        mark = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        held = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        if mark not in {0, APPLICATION} or not held >= {"run", "measurement", "curve"}:
            raise InputError(
                f"store: {str(self.path)!r} is a database of another program, or has lost its"
                " tables; nothing was changed in it; choose another place"
            )

    def _check_whole(self) -> None:
        """Refuse a file that cannot be a database, before SQLite makes an empty one of it.

        The file is not opened here: to close it would release the locks that other connections of
        this process hold on it (sqlite.org/howtocorrupt.html, section 2.2).
        """
        check_regular(self.path, "store", "choose another place")
        size = self.path.stat().st_size
        if size < _SMALLEST:
            raise self._not_ours("is no database" if size else "is empty")

    def _not_ours(self, what: str) -> InputError:
        return InputError(
            f"store: {str(self.path)!r} {what}: it was damaged, or is no store; put back a copy"
            " of it, or choose another place"
        )

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def _version(self) -> int:
        return _version(self._db)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            why = getattr(e, "strerror", None) or e
            what = "choose another place"
            if isinstance(e, sqlite3.DatabaseError) and not isinstance(e, sqlite3.OperationalError):
                what = "if it was damaged, put back a copy of it, or choose another place"
            raise InputError(f"store: cannot use {str(self.path)!r}: {why}; {what}") from None


def _migrate(db: sqlite3.Connection) -> None:
    for script in MIGRATIONS[_version(db) :]:
        step = _version(db) + 1
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {step}; COMMIT;")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
