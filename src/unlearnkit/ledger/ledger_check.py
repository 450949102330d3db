"""Ledger check: entries, states, certificates, files and pointer, compared with one another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_together
from unlearnkit.ledger.deletion_certificate import head_statement
from unlearnkit.ledger.new_ledger import MODELS, PUBLIC, WEIGHTS, signing_key
from unlearnkit.ledger.register import Register
from unlearnkit.ledger.subjects import SubjectKeys
from unlearnkit.ledger.verify import (
    CERTIFICATE,
    ENTRIES,
    HEAD,
    VerificationError,
    canonical,
    check_files,
    check_ledger,
    read_public_key,
    request_states,
    sha256,
)

POINTER = "current.json"


def check(folder: Path, head: bytes | None = None) -> list[str]:
    """Return everything that is wrong with a ledger and its files; nothing where it is whole.

    Args:
        folder: The ledger.
        head: A head that was exported before.

    Returns:
        A line for each fault.
    """
    with Register(folder) as register:
        wrong = [
            f"entry {number}: is no canonical JSON; it was changed"
            for number, text in register.texts()
            if not _is_canonical(text)
        ]
        if wrong:
            return wrong
        entries = [e.facts() for e in register.entries()]
        try:
            root = read_public_key((folder / PUBLIC).read_bytes())
        except (OSError, VerificationError) as e:
            return [f"key: {PUBLIC}: {e}"]
        wrong = check_ledger(entries, _certificates(folder), root, head)
        if wrong:
            return wrong
        states, _ = request_states(entries)
        held = {r.id: r.state for r in register.requests()}
        if held != states:
            wrong.append("requests: their states are not those of the entries")
        received = {e["body"]["id"]: e for e in entries if e["kind"] == "request"}
        wrong += [
            f"request {r.id}: its times are not those of its entry"
            for r in register.requests()
            if r.id in received
            and (r.arrival, r.deadline, r.entry)
            != (
                received[r.id]["time"],
                received[r.id]["body"]["deadline"],
                received[r.id]["sequence"],
            )
        ]
        gone = {n for e in register.entries("subject_key") for n in e.body["destroyed_keys"]}
        wrong += [
            f"subjects: key {name} should be destroyed and is there; unlearnkit ledger purge"
            for name in SubjectKeys(folder).ids()
            if name in gone
        ]
        return wrong + _check_models(folder, register)


def _check_models(folder: Path, register: Register) -> list[str]:
    """Compare the files of each published model; only the last one must be there."""
    wrong = []
    done = register.entries("certificate")
    for entry in done:
        attempt = register.entry(entry.body["attempt"]).body
        subjects = [{"name": n, "digest": {"sha256": d}} for n, d in attempt["files"].items()]
        place = folder / entry.body["folder"]
        same, changed = check_files({"subject": subjects}, place)
        wrong += [f"{entry.body['folder']}: {line}" for line in changed]
        needed = set(attempt["files"]) if entry is done[-1] else set(attempt["files"]) - {WEIGHTS}
        wrong += [
            f"{entry.body['folder']}: {name} is missing"
            for name in sorted(needed - set(same))
            if not (place / name).is_file()
        ]
    return wrong


def _certificates(folder: Path) -> dict[str, bytes]:
    paths = sorted((folder / MODELS).glob(f"*/{CERTIFICATE}"))
    return {sha256(p.read_bytes()): p.read_bytes() for p in paths}


def _is_canonical(text: str) -> bool:
    try:
        return canonical(json.loads(text)) == text.encode()
    except (ValueError, RecursionError):
        return False


def export(folder: Path, out: Path) -> Mapping[str, str]:
    """Write all that an auditor needs to verify a ledger without this library.

    Args:
        folder: The ledger.
        out: A folder; files of an earlier export are replaced.

    Returns:
        The digest of each file by name.

    Raises:
        InputError: If a certificate is missing.
    """
    with Register(folder) as register:
        entries = register.entries()
        last = entries[-1]
        key = signing_key(folder, register)
        ledger = str(entries[0].body["id"])
    lines = [canonical(e.facts()).decode() for e in entries]
    contents = {
        ENTRIES: ("\n".join(lines) + "\n").encode(),
        HEAD: key.envelope(head_statement(ledger, last.sequence, last.digest, last.time)),
        "verify.py": (Path(__file__).parent / "verify.py").read_bytes(),
        **{p.name: p.read_bytes() for p in folder.glob("public*.pem")},
    }
    for e in entries:
        if e.kind == "certificate":
            path = folder / e.body["folder"] / CERTIFICATE
            if not path.is_file():
                raise InputError(f"ledger: {str(path)!r} is missing; put back a copy of it")
            contents[f"certificate-{e.body['batch']}.json"] = path.read_bytes()
    write_together({out / name: content for name, content in contents.items()})
    return {name: sha256(content) for name, content in contents.items()}
