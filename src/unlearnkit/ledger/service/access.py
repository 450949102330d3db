"""Access: tokens, stored as hashes, and what each may do."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_text, write_text
from unlearnkit.ledger.verify import sha256

FILE = "tokens.json"
_NAME = re.compile(r"[\w.-]{1,60}")


class AccessRole(StrEnum):
    """What a token permits."""

    SUBMIT = "submit"
    """Send requests, and ask where one of them stands."""

    READ = "read"
    """Read the queue, states, reports and certificates."""


class AccessToken(FrozenModel):
    """One token: its name, its roles and its hash. The token itself is shown once and not kept."""

    name: str
    roles: tuple[AccessRole, ...]
    sha256: str
    """Of the token, which has 256 random bits: nobody can guess it from this."""

    since: str
    """UTC, ISO 8601."""


_LIST = TypeAdapter(tuple[AccessToken, ...])


class AccessTokens:
    """The tokens of a ledger. A change counts from the next call of the service on."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger / FILE

    def all(self) -> tuple[AccessToken, ...]:
        """Return what is known of each token; nothing where there is no file.

        Raises:
            InputError: If the file is damaged.
        """
        if not self.path.exists():
            return ()
        try:
            return _LIST.validate_json(read_text(self.path, "token"))
        except ValidationError:
            raise InputError(
                f"token: {str(self.path)!r} is damaged; put back a copy, or delete it and make the"
                " tokens anew: unlearnkit ledger token NAME --role read"
            ) from None

    def create(self, name: str, roles: Iterable[AccessRole]) -> str:
        """Return a new token; its hash alone is kept.

        Args:
            name: Of the program or the role that uses it.
            roles: What it permits.

        Returns:
            The token.

        Raises:
            InputError: If the name is taken or has other signs than letters, digits and ``.-_``, or
                there is no role.
        """
        given = tuple(dict.fromkeys(roles))
        if not _NAME.fullmatch(name):
            raise InputError(f"token: a name has 1 to 60 letters, digits and .-_, got {name!r}")
        if not given:
            raise InputError("token: give it a role: --role submit, --role read, or both")
        secret = secrets.token_urlsafe(32)
        with FileLock(self.path.with_suffix(".lock")):
            held = self.all()
            if any(t.name == name for t in held):
                raise InputError(f"token: {name!r} is there already; remove it first: --remove")
            since = datetime.now(UTC).isoformat(timespec="seconds")
            digest = sha256(secret.encode())
            self._write((*held, AccessToken(name=name, roles=given, sha256=digest, since=since)))
        return secret

    def remove(self, name: str) -> None:
        """Let a token permit nothing any more; an unknown name is an ``InputError``."""
        with FileLock(self.path.with_suffix(".lock")):
            held = self.all()
            if not any(t.name == name for t in held):
                names = ", ".join(t.name for t in held) or "none"
                raise InputError(f"token: no token {name!r}; there are: {names}")
            self._write(t for t in held if t.name != name)

    def roles(self, secret: str) -> frozenset[AccessRole]:
        """Return what a token permits; nothing where it is unknown.

        All hashes are compared, each in constant time.
        """
        digest = sha256(secret.encode("utf-8", "surrogatepass"))
        same = [t for t in self.all() if hmac.compare_digest(t.sha256, digest)]
        return frozenset(role for token in same for role in token.roles)

    def _write(self, tokens: Iterable[AccessToken]) -> None:
        content = [t.model_dump(mode="json") for t in tokens]
        write_text(self.path, json.dumps(content, indent=1) + "\n")
