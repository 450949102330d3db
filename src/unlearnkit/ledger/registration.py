"""Registration: the published model as a version of the registry, once."""

from __future__ import annotations

from pathlib import Path

from unlearnkit.ledger.model_registry import (
    TAG,
    ModelRegistry,
    PublishedModel,
    RegisteredName,
)
from unlearnkit.ledger.policy import LedgerPolicy
from unlearnkit.ledger.register import Lease, LedgerEntry, Register
from unlearnkit.ledger.verify import CERTIFICATE


def register_published(
    folder: Path, register: Register, policy: LedgerPolicy, lease: Lease
) -> LedgerEntry | None:
    """Register the model that was published last, unless that is recorded already.

    Models before it that could not be registered in time are left out: they hold data that was
    deleted since.

    Args:
        folder: The ledger.
        register: Its entries.
        policy: Names the registry.
        lease: Of the worker.

    Returns:
        The new entry; None where there is nothing to do.

        A registry that does not answer is a ``RegistryError``; the next call goes on from there.
    """
    done = register.entries("certificate")
    if policy.registry is None or not done:
        return None
    registry = ModelRegistry(folder, policy.registry)
    where = {"registry": registry.name, "certificate": done[-1].body["certificate"]}
    told = [e.body for e in register.entries("registered")]
    if any({**where, "model": policy.registry.model}.items() <= body.items() for body in told):
        return None
    before = str(told[-1]["version"]) if told else _source(register)
    published = registry.publish(_published(folder, register, done[-1], before))
    body = {**where, **published, "batch": done[-1].body["batch"]}
    return register.append("registered", body, lease)


def _source(register: Register) -> str:
    """Return the version that the ledger began from; empty where it began from a file."""
    uri = register.entry(1).body.get("source", "")
    return RegisteredName.parse(uri).version if uri else ""


def _published(
    folder: Path, register: Register, certificate: LedgerEntry, before: str
) -> PublishedModel:
    body = certificate.body
    attempt = register.entry(body["attempt"]).body
    facts = {
        "batch": body["batch"],
        "requests": len(body["requests"]),
        "method": attempt["id"],
        "evidence": attempt["evidence"]["kind"],
        "tier": attempt["tier"],
        "verdict": attempt["verdict"],
        "model_digest": body["model"],
    }
    return PublishedModel(
        certificate=body["certificate"],
        ledger=str(register.entry(1).body["id"]),
        files=tuple(folder / body["folder"] / n for n in (*attempt["files"], CERTIFICATE)),
        tags={f"{TAG}{name}": str(value) for name, value in facts.items()},
        description=f"Unlearned by unlearnkit, {body['batch']}: {attempt['verdict']}; evidence:"
        f" {attempt['evidence']['kind']}.",
        before=before,
    )
