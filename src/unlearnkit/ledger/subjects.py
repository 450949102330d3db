"""Subjects: keyed pseudonyms of what a request names, and the keys behind them."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from unlearnkit.core.errors import InputError
from unlearnkit.core.request import Key
from unlearnkit.ledger.verify import sha256

FOLDER = "subjects"
_NAME = re.compile(r"(\d{4})-([0-9a-f]{16})\.key")


@dataclass(frozen=True)
class SubjectKey:
    """A secret that turns names of subjects into pseudonyms; without it nobody can."""

    id: str
    """Says which key it is, and nothing about it."""

    secret: bytes

    def pseudonym(self, kind: str, name: Key) -> str:
        """Return the pseudonym of a subject: HMAC-SHA256 of its kind and its name.

        Args:
            kind: ``rows``, ``groups`` or ``classes``.
            name: What the user calls it; 17 and "17" are the same.

        Returns:
            64 hexadecimal digits.
        """
        return self.commit(f"{kind}\0{name}".encode())

    def pseudonyms(self, kind: str, names: Iterable[Key]) -> list[str]:
        """Return the pseudonyms of several subjects, sorted, each once."""
        return sorted({self.pseudonym(kind, name) for name in names})

    def commit(self, content: bytes) -> str:
        """Return a keyed digest: it binds its maker, and nobody can guess the content from it."""
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()


class SubjectKeys:
    """The keys of a ledger, one after another; the last one is in use."""

    def __init__(self, ledger: Path) -> None:
        self.folder = ledger / FOLDER

    def create(self) -> SubjectKey:
        """Make a new key and put it in use."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            secret = secrets.token_bytes(32)
            name = sha256(b"subject key" + secret)[:16]
            path = self.folder / f"{len(self._destroyed()) + len(self._paths()) + 1:04}-{name}.key"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as f:
                f.write(secret)
                f.flush()
                os.fsync(f.fileno())
        return SubjectKey(name, secret)

    def current(self) -> SubjectKey:
        """Return the key in use.

        Raises:
            InputError: If there is none.
        """
        paths = self._paths()
        if not paths:
            raise InputError(
                f"ledger: no key of subjects in {str(self.folder)!r}; put back a copy of it"
            )
        return _read(paths[-1])

    def find(self, name: str) -> SubjectKey | None:
        """Return the key of an id; None where it was destroyed."""
        return next((_read(p) for p in self._paths() if _NAME.fullmatch(p.name)[2] == name), None)  # type: ignore[index]

    def destroy(self, names: Iterable[str]) -> None:
        """Destroy the keys of these ids; those that are gone already stay so.

        Each is overwritten. Copies of the folder and what a disk keeps of overwritten blocks are
        beyond reach: keep the folder out of backups, or on an encrypted disk.
        """
        gone = set(names)
        for path in self._paths():
            if _read(path).id in gone:
                path.rename(path.with_suffix(".destroyed"))
        for path in self._destroyed():  # also of a call that was killed
            with path.open("r+b") as f:
                f.write(secrets.token_bytes(32))
                f.flush()
                os.fsync(f.fileno())

    def ids(self) -> list[str]:
        """Return the ids of the keys that are there."""
        return [_read(path).id for path in self._paths()]

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.key") if _NAME.fullmatch(p.name))

    def _destroyed(self) -> list[Path]:
        return list(self.folder.glob("*.destroyed"))


def _read(path: Path) -> SubjectKey:
    found = _NAME.fullmatch(path.name)
    secret = path.read_bytes()
    if found is None or sha256(b"subject key" + secret)[:16] != found[2]:
        raise InputError(f"ledger: the key {str(path)!r} was changed; put back a copy of it")
    return SubjectKey(found[2], secret)
