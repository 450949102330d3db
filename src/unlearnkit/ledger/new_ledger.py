"""New ledger: its folder with keys, policy, model and first entry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from unlearnkit.cache import Cache
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.core.case import Case
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_bytes, write_text
from unlearnkit.core.runtime import Reporter, Runtime
from unlearnkit.ledger.deletion_certificate import SigningKey
from unlearnkit.ledger.policy import FILE as POLICY
from unlearnkit.ledger.policy import TEMPLATE, LedgerPolicy, read_policy
from unlearnkit.ledger.register import FILE, Register, now
from unlearnkit.ledger.subject_rows import data_facts, with_keys
from unlearnkit.ledger.subjects import SubjectKeys
from unlearnkit.oracles import train_original
from unlearnkit.unlearning.run_method import fresh_model

MODELS, ORIGINAL, WEIGHTS = "models", "original", "model.safetensors"
PUBLIC, PRIVATE = "public.pem", "signing.key"
MARK = ".ledger"
"""Ends the name of the file that says which ledger a checkpoint belongs to."""


def create_ledger(
    folder: Path,
    name: str,
    case: Case,
    *,
    model: Path | None = None,
    signer: str = "the owner of this ledger",
    reporter: Reporter | None = None,
    cache: Cache | None = None,
    clock: Callable[[], datetime] = now,
) -> Register:
    """Make a ledger for one model.

    Args:
        folder: Its place; absent or empty, but for a ``policy.yaml`` that is then used.
        name: Of the case: built-in, or ``package.module:function``.
        case: What the model was trained on.
        model: Its weights; the original is trained, or taken from the cache, when None.
        signer: The role that signs certificates.
        reporter: Hears of progress.
        cache: Where trained models are kept.
        clock: Gives the time.

    Returns:
        The register. A place that is taken, and a model that has a ledger, are an ``InputError``.
    """
    _check_free(folder)
    case = with_keys(case)
    rt = Runtime.on("cpu", reporter=reporter)
    given = None if model is None else load_weights(fresh_model(case, rt), model)
    weights = train_original(case, rt=rt, cache=cache).model if given is None else given
    id_ = str(uuid.uuid4())
    if not (folder / POLICY).exists():
        text = TEMPLATE.format(signer=json.dumps(signer))
        if model is not None:
            text = text.replace(
                "checkpoints: []", f"checkpoints: [{json.dumps(str(model.resolve()))}]"
            )
        write_text(folder / POLICY, text)
    policy = read_policy(folder)
    if model is not None:
        _mark(model, id_, folder)
    save_weights(weights, folder / MODELS / ORIGINAL / WEIGHTS)
    key = SigningKey.create(folder / policy.signer.key)
    write_bytes(folder / PUBLIC, key.pem)
    subjects = SubjectKeys(folder).create()
    return Register.create(
        folder,
        {
            "id": id_,
            "case": name,
            "model": model_digest(weights),
            "data": data_facts(case, subjects),
            "subject_key": subjects.id,
            "key": key.public,
            "signer": policy.signer.name,
        },
        clock,
    )


def _check_free(folder: Path) -> None:
    """Refuse a place that holds a ledger or anything but a policy."""
    left = {p.name for p in folder.iterdir()} - {POLICY} if folder.is_dir() else set()
    if left:
        what = "has a ledger" if (folder / FILE).exists() else "is not empty"
        raise InputError(f"ledger: {str(folder)!r} {what}; choose another place")


def _mark(model: Path, id_: str, folder: Path) -> None:
    """Write next to a checkpoint which ledger it belongs to; two on one model are refused."""
    mark = model.with_name(model.name + MARK)
    if mark.is_file():
        try:
            place = str(json.loads(mark.read_text("utf-8"))["folder"])
        except (ValueError, KeyError, TypeError):
            place = "?"
        if (Path(place) / FILE).is_file() or place == "?":
            raise InputError(
                f"ledger: {str(model)!r} has the ledger {place!r} already; send requests there, or"
                f" remove {mark.name} if that ledger is no longer used"
            )
    write_text(mark, json.dumps({"ledger": id_, "folder": str(folder.resolve())}) + "\n")


def rotate_key(folder: Path, new: Path) -> SigningKey:
    """Put a new signing key in the place of the old one; both are needed.

    Certificates of the old key stay valid. Afterwards name the new key in ``policy.yaml``, and keep
    the old one away from this machine, or destroy it.

    Args:
        folder: The ledger.
        new: Where the new key is written.

    Returns:
        The new key.

    Raises:
        InputError: If a worker is at work, or the old key is not the ledger's.
    """
    with Register(folder) as register:
        lease = register.take_lease()
        if lease is None:
            raise InputError("key: a worker is at work; rotate the key when it has ended")
        with lease:
            old = signing_key(folder, register)
            key = SigningKey.create(new)
            ledger = str(register.entry(1).body["id"])
            register.append("key", old.name_successor(ledger, key), lease)
    count = len(list(folder.glob("public*.pem")))
    write_bytes(folder / f"public-{count + 1}.pem", key.pem)
    return key


def signing_key(folder: Path, register: Register, policy: LedgerPolicy | None = None) -> SigningKey:
    """Return the key that the policy names.

    Args:
        folder: The ledger.
        register: Its entries.
        policy: Its rules; they are read when None.

    Returns:
        The key.

    Raises:
        InputError: If it is not the one that signs for this ledger now.
    """
    path = folder / (policy or read_policy(folder)).signer.key
    key = SigningKey.read(path)
    want = (register.latest("key") or register.entry(1)).body["key"]
    if key.public != want:
        raise InputError(
            f"key: {str(path)!r} is not the key that signs for this ledger now; name that one in"
            " policy.yaml, or rotate the key: unlearnkit ledger init --new-key FILE"
        )
    return key
