"""Verification: whether certificates, entries and files are what was signed.

This file stands alone. It needs Python 3.11 and the package ``cryptography``, no network, and
nothing else of the library, so that an auditor can read it and keep a copy:

    python verify.py FOLDER --key public.pem                   an exported ledger
    python verify.py FOLDER --key public.pem --head head.json  with a head that was kept before
    python verify.py certificate.json --key public.pem         one certificate and its files

``public.pem`` must come from the owner of the ledger by another way than the folder itself.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

STATEMENT = "https://in-toto.io/Statement/v1"
CERTIFICATE_TYPE = "urn:unlearnkit:unlearning:v0.1"
HEAD_TYPE = "urn:unlearnkit:ledger-head:v0.1"
PAYLOAD = "application/vnd.in-toto+json"
FIRST = "0" * 64
"""What stands for the digest of the entry before the first."""

ENTRIES, HEAD, CERTIFICATE = "entries.jsonl", "head.json", "certificate.json"
FIELDS = ("sequence", "time", "kind", "body", "previous")

BEFORE: Mapping[str, tuple[str | None, ...]] = {
    "waiting": (None,),
    "not found": ("waiting", "rejected"),
    "running": ("waiting", "rejected"),
    "rejected": ("running",),
    "done": ("running",),
}
"""States of a request, and the states that each may follow."""

AFTER = {
    "request": "waiting",
    "not_found": "not found",
    "batch": "running",
    "rejected": "rejected",
    "certificate": "done",
}
"""The state that an entry of a kind gives to the requests that it names."""


class VerificationError(Exception):
    """A signature or a form is wrong; the message says which."""


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def entry_digest(entry: Mapping[str, Any]) -> str:
    """Return the digest of an entry: of all its fields, that of the entry before among them."""
    return sha256(canonical({name: entry[name] for name in FIELDS}))


def signing_bytes(payload: bytes) -> bytes:
    """Return what a DSSE signature is made of: the pre-authentication encoding, version 1."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a public key: the SHA-256 of its 32 bytes."""
    return sha256(key.public_bytes_raw())


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """Return the Ed25519 key of a PEM file."""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        raise VerificationError("key: the file is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("key: the file holds a key of another kind than Ed25519")
    return key


def open_envelope(content: bytes, key: Ed25519PublicKey, kind: str) -> dict[str, Any]:
    """Return the statement in a DSSE envelope after the check of its signature.

    Args:
        content: The envelope, JSON.
        key: Who must have signed it.
        kind: The type of predicate that it must have.

    Returns:
        The in-toto statement.

    Raises:
        VerificationError: If the form, the signature or the type is wrong.
    """
    try:
        envelope = json.loads(content)
        payload = base64.b64decode(envelope["payload"], validate=True)
        given = {s["keyid"]: base64.b64decode(s["sig"]) for s in envelope["signatures"]}
        whole = envelope["payloadType"] == PAYLOAD
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VerificationError("signature: the file is no DSSE envelope") from None
    if not whole:
        raise VerificationError("signature: the envelope holds no in-toto statement")
    if key_id(key) not in given:
        raise VerificationError(f"signature: not by key {key_id(key)[:12]}")
    try:
        key.verify(given[key_id(key)], signing_bytes(payload))
    except InvalidSignature:
        raise VerificationError("signature: wrong; the content was changed") from None
    statement: dict[str, Any] = json.loads(payload)
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != kind:
        raise VerificationError(f"statement: of another type than {kind}")
    return statement


def check_files(statement: Mapping[str, Any], folder: Path) -> tuple[list[str], list[str]]:
    """Compare the files that a statement names with their digests.

    Args:
        statement: Its subjects have a name and a SHA-256.
        folder: Where the files are.

    Returns:
        Names of files that match, and a line for each that differs. Absent files are in neither.
    """
    same, wrong = [], []
    for subject in statement["subject"]:
        path = folder / subject["name"]
        if path.name != subject["name"] or not path.is_file():
            continue
        if sha256(path.read_bytes()) == subject["digest"]["sha256"]:
            same.append(subject["name"])
        else:
            wrong.append(f"file {subject['name']}: changed after the certificate")
    return same, wrong


def check_chain(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the order, the digests and the times of entries."""
    wrong: list[str] = []
    previous, time = FIRST, ""
    for number, entry in enumerate(entries, 1):
        name = f"entry {number}"
        if set(entry) != {*FIELDS, "digest"}:
            return [*wrong, f"{name}: has other fields than an entry"]
        if entry["sequence"] != number:
            return [*wrong, f"{name}: has number {entry['sequence']!r}; entries are missing"]
        if entry["previous"] != previous:
            wrong.append(f"{name}: does not follow the entry before it")
        if entry["digest"] != entry_digest(entry):
            wrong.append(f"{name}: changed after it was written")
        if not isinstance(entry["time"], str) or entry["time"] < time:
            wrong.append(f"{name}: its time lies before that of the entry before it")
        previous, time = entry["digest"], str(entry["time"])
    return wrong


def moves(kind: str, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the requests that an entry moves, each with its new state."""
    if kind not in AFTER:
        return []
    named = body["requests"] if "requests" in body else [body["id"]]
    return [(str(name), AFTER[kind]) for name in named]


def request_states(entries: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Return the state of every request, and what is wrong in the order of states."""
    states: dict[str, str] = {}
    wrong: list[str] = []
    for entry in entries:
        for name, state in moves(entry["kind"], entry["body"]):
            if states.get(name) not in BEFORE[state]:
                wrong.append(
                    f"entry {entry['sequence']}: request {name} cannot be {state}"
                    f" after {states.get(name, 'nothing')}"
                )
            states[name] = state
    return states, wrong


def signing_keys(
    entries: Sequence[Mapping[str, Any]],
) -> tuple[list[tuple[int, Ed25519PublicKey]], list[str]]:
    """Return the keys of a ledger with the entry from which each is valid, and what is wrong.

    The first entry names the first key. Each later one is signed by the key before it.
    """
    keys: list[tuple[int, Ed25519PublicKey]] = []
    wrong: list[str] = []
    for entry in entries:
        if entry["kind"] not in {"ledger", "key"}:
            continue
        body = entry["body"]
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(body["key"]))
            if entry["kind"] == "key":
                keys[-1][1].verify(base64.b64decode(body["signature"]), new_key_bytes(body))
        except (InvalidSignature, ValueError, KeyError, IndexError, TypeError):
            wrong.append(f"entry {entry['sequence']}: a key that the key before did not sign")
            continue
        keys.append((entry["sequence"], key))
    return keys, wrong


def new_key_bytes(body: Mapping[str, Any]) -> bytes:
    """Return what the old key signs to name a new one."""
    return canonical({"ledger": body["ledger"], "key": body["key"]})


def check_ledger(
    entries: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, bytes],
    root: Ed25519PublicKey | None = None,
    head: bytes | None = None,
) -> list[str]:
    """Return everything that is wrong with a ledger; nothing where it is whole.

    Args:
        entries: All entries in order.
        certificates: Envelopes by their SHA-256.
        root: The first key of the ledger, from its owner; the one in the ledger when None.
        head: A head that was exported before; the ledger must still hold it.

    Returns:
        A line for each fault.
    """
    if not entries or entries[0].get("kind") != "ledger":
        return ["entry 1: is not the beginning of a ledger"]
    wrong = check_chain(entries)
    if wrong:  # what follows would rest on changed entries
        return wrong
    try:
        keys, more = signing_keys(entries)
        wrong += more + request_states(entries)[1]
        if not keys:
            return wrong
        if root is not None and key_id(root) != key_id(keys[0][1]):
            wrong.append("entry 1: names another key than the one that was given")
        for entry in entries:
            if entry["kind"] == "certificate":
                wrong += _check_certificate(entry, entries, certificates, keys)
        if head is not None:
            wrong += _check_head(head, entries, keys)
    except (KeyError, TypeError, AttributeError, IndexError):
        wrong.append("entries: of another form than those of a ledger")
    return wrong


def _valid_key(keys: Sequence[tuple[int, Ed25519PublicKey]], sequence: int) -> Ed25519PublicKey:
    return [key for start, key in keys if start <= max(sequence, keys[0][0])][-1]


def _check_certificate(
    entry: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, bytes],
    keys: Sequence[tuple[int, Ed25519PublicKey]],
) -> list[str]:
    """Compare a certificate with the entries that it rests on."""
    body, who = entry["body"], f"certificate of batch {entry['body']['batch']}"
    if body["certificate"] not in certificates:
        return [f"{who}: missing or changed"]
    try:
        key = _valid_key(keys, entry["sequence"])
        statement = open_envelope(certificates[body["certificate"]], key, CERTIFICATE_TYPE)
    except VerificationError as e:
        return [f"{who}: {e}"]
    said = statement["predicate"]
    attempt = entries[said["chain"]["sequence"] - 1]
    begun = [e["body"] for e in entries if e["kind"] == "batch"]
    batch = next((b for b in begun if b["id"] == body["batch"]), None)
    if batch is None:
        return [f"{who}: no entry begins it"]
    pairs = {
        "ledger": (said["ledger"], entries[0]["body"]["id"]),
        "chain position": (said["chain"]["digest"], attempt["digest"]),
        "batch": (said["batch"], attempt["body"]["batch"]),
        "acceptance": (attempt["body"]["accepted"], True),
        "requests": ([r["id"] for r in said["requests"]], batch["requests"]),
        "requests of the entry": (body["requests"], batch["requests"]),
        "commitment": (said["rows"]["commitment"], batch["commitment"]),
        "model after": (said["model"]["after"], attempt["body"]["model"]),
        "model before": (said["model"]["before"], batch["model"]),
        "verdict": (said["audit"]["verdict"], attempt["body"]["verdict"]),
    }
    return [f"{who}: another {name} than in the ledger" for name, (a, b) in pairs.items() if a != b]


def _check_head(
    head: bytes,
    entries: Sequence[Mapping[str, Any]],
    keys: Sequence[tuple[int, Ed25519PublicKey]],
) -> list[str]:
    """Return whether entries that a signed head had seen are gone or others."""
    errors = []
    for _, key in reversed(keys):
        try:
            said = open_envelope(head, key, HEAD_TYPE)["predicate"]
        except VerificationError as e:
            errors.append(f"head: {e}")
            continue
        if said["ledger"] != entries[0]["body"]["id"]:
            return ["head: of another ledger"]
        if said["sequence"] > len(entries):
            missing = said["sequence"] - len(entries)
            return [f"head: the last {missing} entries that it had seen are missing"]
        if entries[said["sequence"] - 1]["digest"] != said["digest"]:
            return [f"head: entry {said['sequence']} is another than the one that it had seen"]
        return []
    return errors[:1]


def read_entries(text: str) -> list[dict[str, Any]]:
    """Return the entries of an export, one a line, each in canonical JSON."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
            whole = isinstance(entry, dict) and canonical(entry) == line.encode()
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            raise VerificationError(f"entry {number}: is no canonical JSON; it was changed")
        found.append(entry)
    return found


def verify_export(folder: Path, root: Ed25519PublicKey, head: bytes | None) -> list[str]:
    """Return everything that is wrong with an exported ledger."""
    entries = read_entries((folder / ENTRIES).read_text("utf-8"))
    files = [p for p in sorted(folder.rglob("*.json")) if p.name.startswith("certificate")]
    own = folder / HEAD
    heads = [h for h in (own.read_bytes() if own.is_file() else None, head) if h is not None]
    certificates = {sha256(p.read_bytes()): p.read_bytes() for p in files}
    wrong = check_ledger(entries, certificates, root)
    known = {e["body"].get("certificate") for e in entries}
    wrong += [
        f"file {p.name}: no entry names it; entries are missing"
        for p in files
        if sha256(p.read_bytes()) not in known
    ]
    for one in heads:
        wrong += [w for w in check_ledger(entries, certificates, root, one) if w not in wrong]
    return wrong


def _words(statement: Mapping[str, Any], same: Sequence[str]) -> list[str]:
    """Return what a certificate says, in lines."""
    said = statement["predicate"]
    audit, evidence = said["audit"], said["evidence"]
    return [
        f"batch {said['batch']} of ledger {said['ledger']}, issued {said['issued']}",
        *(
            f"request {r['id']}: received {r['received']}, deadline {r['deadline']}"
            f"{', LATE' if r['late'] else ''}"
            for r in said["requests"]
        ),
        f"rows removed: {said['rows']['number']}, committed {said['rows']['committed']}",
        f"model before {said['model']['before'][:16]}, after {said['model']['after'][:16]}",
        f"method: {said['method']['id']}; evidence: {evidence['kind']}: {evidence['why']}",
        f"audit: {audit['tier']}: {audit['verdict']}",
        *(f"does not prove: {line}" for line in said["does_not_prove"]),
        f"files that match: {', '.join(same) or 'none was given'}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; return 0 where all is right, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Verify a certificate or an exported ledger.")
    parser.add_argument("place", type=Path, help="a certificate (.json) or an exported folder")
    parser.add_argument("--key", type=Path, required=True, help="the first public key, PEM")
    parser.add_argument("--head", type=Path, help="a head that was exported before")
    given = parser.parse_args(arguments)
    lines: list[str] = []
    try:
        root = read_public_key(given.key.read_bytes())
        if given.place.is_dir():
            head = None if given.head is None else given.head.read_bytes()
            wrong = verify_export(given.place, root, head)
            count = len((given.place / ENTRIES).read_text("utf-8").splitlines())
            lines = [f"{count} entries"]
        else:
            statement = open_envelope(given.place.read_bytes(), root, CERTIFICATE_TYPE)
            same, wrong = check_files(statement, given.place.parent)
            lines = _words(statement, same)
    except OSError as e:
        wrong = [f"cannot read {e.filename}: {e.strerror}; name a file or folder of the export"]
    except (VerificationError, UnicodeDecodeError) as e:
        wrong = [str(e)]
    lines += [f"WRONG: {w}" for w in wrong] or ["verified"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
