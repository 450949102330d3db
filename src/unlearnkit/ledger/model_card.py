"""Model card: the section on unlearning in a README of Hugging Face's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlearnkit.core.bounded_yaml import parse_yaml
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_text, write_bytes
from unlearnkit.core.version import __version__
from unlearnkit.ledger.deletion_certificate import ALWAYS
from unlearnkit.ledger.register import Register

CARD = "README.md"
KEY = "unlearning"
"""Of the metadata: what is under it is ours, and nothing else is."""

BEGIN, END = "<!-- unlearnkit: begin -->", "<!-- unlearnkit: end -->"
_HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_OWN = re.compile(rf"^{KEY}:[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE)


def write_card(folder: Path, out: Path) -> Path:
    """Write or renew the section on unlearning of a model card; the rest stays, byte by byte.

    Args:
        folder: The ledger.
        out: The folder of the model; its ``README.md`` may be there.

    Returns:
        The file.

        A ledger that published nothing, and a card that cannot be renewed, are an ``InputError``.
    """
    with Register(folder) as register:
        metadata, section = card_facts(register), card_section(register)
    path = out / CARD
    card = read_text(path, "card") if path.exists() else ""
    return write_bytes(path, renew(card, metadata, section).encode())


def renew(card: str, metadata: Mapping[str, Any], section: str) -> str:
    """Return a model card with new metadata and a new section in the places of the old ones.

    Args:
        card: Its text; may be empty.
        metadata: What stands under ``unlearning``.
        section: Markdown.

    Returns:
        The text; everything else in it is as it was.

    Raises:
        InputError: If the metadata are no YAML, or the marks of the section are no pair.
    """
    line = "\r\n" if "\r\n" in card else "\n"
    own = yaml.safe_dump({KEY: dict(metadata)}, sort_keys=False, allow_unicode=True, width=10**6)
    found = _HEAD.match(card)
    old, body = (found[1], card[found.end() :]) if found else ("", card)
    _check_metadata(old)
    kept = _OWN.sub("", old)
    if kept and not kept.endswith("\n"):
        kept += line
    end = card[found.end(1) : found.end()].rstrip("\r\n") + line if found else f"---{line}"
    start = card[: found.start(1)] if found else f"---{line}"
    head = start + kept + own.replace("\n", line) + end
    block = f"{BEGIN}\n{section}\n{END}".replace("\n", line)
    if (body.count(BEGIN), body.count(END)) == (1, 1) and body.index(BEGIN) < body.index(END):
        before, rest = body.split(BEGIN)
        return head + before + block + rest.split(END)[1]
    if BEGIN in body or END in body:
        raise InputError(f"card: needs one {BEGIN} before one {END}; mend them, or remove both")
    space = "" if not body or body.endswith(line * 2) else line if body.endswith("\n") else line * 2
    return head + body + space + block + line


def _check_metadata(text: str) -> None:
    try:
        content = parse_yaml(text)
    except ValueError as e:
        raise InputError(f"card: its metadata are no YAML: {e}; mend them") from None
    if not isinstance(content, dict | None):
        raise InputError("card: its metadata hold no keys; mend them")


def card_facts(register: Register) -> dict[str, Any]:
    """Return what the metadata say: deletions so far, and how the last one ended.

    Raises:
        InputError: If nothing is published yet.
    """
    done = register.entries("certificate")
    if not done:
        raise InputError("card: no deletion is published yet; unlearnkit ledger run")
    attempt = register.entry(done[-1].body["attempt"])
    said = attempt.body
    return {
        "tool": f"unlearnkit {__version__}",
        "ledger": register.entry(1).body["id"],
        "deletions": len(done),
        "rows_removed": sum(_rows(register).values()),
        "batch": said["batch"],
        "issued": attempt.time,
        "method": said["id"],
        "evidence": said["evidence"]["kind"],
        "audit_tier": said["tier"],
        "verdict": said["verdict"],
        "certificate_sha256": done[-1].body["certificate"],
        "weights_sha256": said["files"]["model.safetensors"],
    }


def card_section(register: Register) -> str:
    """Return what a reader of the model must know, in Markdown."""
    done, rows = register.entries("certificate"), _rows(register)
    tried = [register.entry(e.body["attempt"]) for e in done]
    said = tried[-1].body
    one = len(done) == 1
    table = [
        f"| {a.body['batch']} | {a.time[:10]} | {rows[a.body['batch']]} | {a.body['id']} |"
        f" {a.body['evidence']['kind']} | {a.body['verdict']} |"
        for a in tried
    ]
    return "\n".join(
        [
            "## Unlearning",
            "",
            f"{sum(rows.values())} rows of training data were removed from this model on request,"
            f" in {'one deletion' if one else f'{len(done)} deletions'}.",
            "",
            "| deletion | date | rows | method | evidence | verdict of the audit |",
            "| --- | --- | --- | --- | --- | --- |",
            *table,
            "",
            f"**Verdict of the last audit** (tier {said['tier']}): {said['verdict']}."
            f" {_plain(said['reason'])}",
            "",
            *(
                f"**Power, {question}**: {_plain(power)}\n"
                for question, power in said["power"].items()
                if power
            ),
            f"**Evidence**: {said['evidence']['kind']}: {_plain(said['evidence']['why'])}.",
            "",
            "**It does not prove:**",
            "",
            *(f"- {_plain(text)}" for text in (*said["limits"], *ALWAYS)),
            "",
            f"The certificate has the SHA-256 `{done[-1].body['certificate']}`. Verify it next to"
            " the model: `python verify.py certificate.json --key public.pem`.",
        ]
    )


def _rows(register: Register) -> dict[str, int]:
    """Return how many rows each published deletion removed."""
    done = {e.body["batch"] for e in register.entries("certificate")}
    return {e.body["id"]: e.body["rows"] for e in register.entries("batch") if e.body["id"] in done}


def _plain(text: str) -> str:
    """Return a text that is no markup."""
    return text.replace("<", "&lt;").replace("\n", " ")
