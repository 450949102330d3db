"""Certificate: a signed in-toto statement of what was deleted, how, and with which evidence."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular
from unlearnkit.ledger.verify import (
    CERTIFICATE_TYPE,
    HEAD_TYPE,
    PAYLOAD,
    STATEMENT,
    canonical,
    key_id,
    new_key_bytes,
    signing_bytes,
)

ALWAYS = (
    "that other copies of the data or of earlier models are gone: see ledger carriers",
    "anything about rows that no request named, or about data that the owner did not give",
    "that a request came from the person whom it concerns",
)
"""What no certificate proves."""


class SigningKey:
    """An Ed25519 key that signs certificates, heads and its own successor."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """Return a new key, written to a file that only its owner can read.

        Args:
            path: Where there is no file.

        Returns:
            The key.

        Raises:
            InputError: If the file is there, or cannot be written.
        """
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(pem)
        except OSError as e:
            raise InputError(
                f"key: cannot write {str(path)!r}: {e.strerror}; name another file"
            ) from None
        return cls(key)

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Return the key in a file.

        Raises:
            InputError: If it is no Ed25519 key in PEM without a password.
        """
        check_regular(path, "key", "name the signing key in policy.yaml")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"key: {str(path)!r} is no Ed25519 key in PEM without a password")
        return cls(key)

    @property
    def public(self) -> str:
        """Return the public key: base64 of its 32 bytes."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @property
    def pem(self) -> bytes:
        """Return the public key in PEM."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def name_successor(self, ledger: str, new: SigningKey) -> dict[str, str]:
        """Return the content of an entry that puts a new key in the place of this one."""
        body = {"ledger": ledger, "key": new.public}
        return {**body, "signature": base64.b64encode(self._key.sign(new_key_bytes(body))).decode()}

    def envelope(self, statement: Mapping[str, Any]) -> bytes:
        """Return a statement in a signed DSSE envelope, as JSON."""
        payload = canonical(statement)
        signature = {
            "keyid": key_id(self._key.public_key()),
            "sig": base64.b64encode(self._key.sign(signing_bytes(payload))).decode(),
        }
        return canonical(
            {
                "payloadType": PAYLOAD,
                "payload": base64.b64encode(payload).decode(),
                "signatures": [signature],
            }
        )


def head_statement(ledger: str, sequence: int, digest: str, time: str) -> dict[str, Any]:
    """Return the statement of a ledger's last entry, to be kept elsewhere."""
    return {
        "_type": STATEMENT,
        "predicateType": HEAD_TYPE,
        "subject": [{"name": "entry", "digest": {"sha256": digest}}],
        "predicate": {"ledger": ledger, "sequence": sequence, "digest": digest, "time": time},
    }


def certificate_statement(
    files: Mapping[str, str],
    ledger: str,
    signer: str,
    batch: Mapping[str, Any],
    attempt: Mapping[str, Any],
    requests: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the statement of a published deletion, made of entries alone.

    Args:
        files: SHA-256 of each file, by name.
        ledger: Its id.
        signer: The role that signs.
        batch: The entry that committed to the rows, before anything was changed.
        attempt: The entry of the model that the policy accepted.
        requests: The entries that received the requests.

    Returns:
        An in-toto statement: equal entries, equal statement.
    """
    said, body = attempt["body"], batch["body"]
    return {
        "_type": STATEMENT,
        "predicateType": CERTIFICATE_TYPE,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in sorted(files.items())],
        "predicate": {
            "ledger": ledger,
            "batch": body["id"],
            "issued": attempt["time"],
            "requests": [_request(r, attempt["time"]) for r in requests],
            "rows": {
                "number": body["rows"],
                "commitment": body["commitment"],
                "subject_key": body["subject_key"],
                "committed": batch["time"],
                "sequence": batch["sequence"],
            },
            "data": body["data"],
            "code": body["code"],
            "environment": body["environment"],
            "model": {"before": body["model"], "after": said["model"]},
            "method": {k: said[k] for k in ("id", "settings", "seed", "device", "cost")},
            "evidence": said["evidence"],
            "audit": {k: said[k] for k in ("tier", "verdict", "reason", "power", "report")},
            "drift": said["drift"],
            "does_not_prove": [*said["limits"], *_of_earlier_batches(said), *ALWAYS],
            "policy": {"digest": said["policy"], "signer": signer},
            "chain": {"sequence": attempt["sequence"], "digest": attempt["digest"]},
        },
    }


def _of_earlier_batches(attempt: Mapping[str, Any]) -> list[str]:
    """Return what the audit of one batch of several says nothing about."""
    before, since = attempt["drift"]["batches"] - 1, attempt["drift"]["since"]
    if before < 1:
        return []
    return [
        f"anything about the rows of the {before} batches before it since {since}: each was"
        " audited when it was removed, and not again"
    ]


def _request(entry: Mapping[str, Any], issued: str) -> dict[str, Any]:
    body = entry["body"]
    return {
        "id": body["id"],
        "received": entry["time"],
        "deadline": body["deadline"],
        "late": issued > body["deadline"],
        "reason": body["reason"],
        "kind": body["kind"],
        "subjects": body["subjects"],
    }
