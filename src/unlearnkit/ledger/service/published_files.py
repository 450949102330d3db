"""Published files: certificate and report of a batch, checked before they are sent."""

from __future__ import annotations

from pathlib import Path

from unlearnkit.ledger.deletion_run import PAGE, REPORT
from unlearnkit.ledger.register import LedgerUnavailableError, Register, UnknownRequestError
from unlearnkit.ledger.verify import CERTIFICATE, sha256


def certificate_bytes(folder: Path, register: Register, batch: str) -> bytes:
    """Return the certificate of a batch; an unknown batch and a changed file are errors."""
    found = [e for e in register.entries("certificate") if e.body["batch"] == batch]
    if not found:
        raise UnknownRequestError(f"certificate: there is none for {batch!r}: it is not done")
    body = found[0].body
    return _same(folder / body["folder"] / CERTIFICATE, body["certificate"])


def report_bytes(folder: Path, register: Register, batch: str, *, page: bool) -> bytes:
    """Return the report of a batch: of the model that was accepted, else of the last attempt.

    Args:
        folder: The ledger.
        register: Its entries.
        batch: Its id.
        page: Whether to return the page in place of JSON.

    Returns:
        The file, as its digest was recorded.

    Raises:
        UnknownRequestError: If there is no such batch, attempt or page.
    """
    name = PAGE if page else REPORT
    tried = [e.body for e in register.entries("attempt") if e.body["batch"] == batch]
    found = sorted((b for b in tried if "files" in b), key=lambda b: bool(b["accepted"]))
    if not found:
        raise UnknownRequestError(f"report: there is none for {batch!r} yet")
    if name not in found[-1]["files"]:
        raise UnknownRequestError(
            f"report: {batch!r} has no page; set page: true in policy.yaml, install"
            " 'unlearnkit[report]', or read the JSON"
        )
    return _same(folder / found[-1]["folder"] / name, found[-1]["files"][name])


def _same(path: Path, want: str) -> bytes:
    """Return a file's content if it is what was recorded."""
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content) != want:
        raise LedgerUnavailableError(
            f"ledger: {path.name} is missing or was changed after it was recorded; put back a copy"
        )
    return content
