"""New ledger: its folder with keys, policy, model and first entry."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from torch import nn

from unlearnkit.cache import Cache
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.core.case import Case
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_bytes, write_text
from unlearnkit.core.runtime import Reporter, Runtime
from unlearnkit.ledger.deletion_certificate import SigningKey
from unlearnkit.ledger.model_registry import ModelRegistry, RegisteredName, absolute_uri
from unlearnkit.ledger.policy import FILE as POLICY
from unlearnkit.ledger.policy import TEMPLATE, LedgerPolicy, RegistryPlace, read_policy
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
    model: Path | str | None = None,
    tracking_uri: str = "",
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
        model: Its weights: a file, or a registered version such as ``models:/digits/3``; the
            original is trained, or taken from the cache, when None.
        tracking_uri: Of the registry, for a new policy; MLFLOW_TRACKING_URI when empty.
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
    id_ = str(uuid.uuid4())
    if not (folder / POLICY).exists():
        write_text(folder / POLICY, _policy_text(signer, model, tracking_uri))
    policy = read_policy(folder)
    registry = None if policy.registry is None else ModelRegistry(folder, policy.registry)
    if registry is not None:
        registry.claim()
    source = ""
    if model is None:
        weights = train_original(case, rt=rt, cache=cache).model
    elif _is_registered(model):
        weights, source = _registered_weights(registry, str(model), case, rt)
    else:
        weights = load_weights(fresh_model(case, rt), model)
        _mark(Path(model), id_, folder)
    save_weights(weights, folder / MODELS / ORIGINAL / WEIGHTS)
    key = SigningKey.create(folder / policy.signer.key)
    write_bytes(folder / PUBLIC, key.pem)
    subjects = SubjectKeys(folder).create()
    first = {
        "id": id_, "case": name, "model": model_digest(weights), "signer": policy.signer.name,
        "data": data_facts(case, subjects), "subject_key": subjects.id, "key": key.public,
    }  # fmt: skip
    register = Register.create(folder, first | ({"source": source} if source else {}), clock)
    if registry is not None:
        registry.claim(id_)
    return register


def _is_registered(model: Path | str | None) -> bool:
    return str(model).startswith("models:/")


def _policy_text(signer: str, model: Path | str | None, tracking_uri: str) -> str:
    """Return a new policy: it names the checkpoint or the registered model that was given."""
    text = TEMPLATE.format(signer=json.dumps(signer))
    if model is not None and not _is_registered(model):
        place = json.dumps(str(Path(model).resolve()))
        return text.replace("checkpoints: []", f"checkpoints: [{place}]")
    if model is not None:
        name = RegisteredName.parse(str(model))
        registry = {
            "tracking_uri": absolute_uri(tracking_uri, Path.cwd()),
            "model": name.model,
            "alias": name.alias or RegistryPlace(model=name.model).alias,
        }
        return re.sub(r"registry: null.*", lambda _: f"registry: {json.dumps(registry)}", text)
    return text


def _registered_weights(
    registry: ModelRegistry | None, uri: str, case: Case, rt: Runtime
) -> tuple[nn.Module, str]:
    """Return the weights of a registered version, and the version that its name stood for."""
    if registry is None or registry.place.model != RegisteredName.parse(uri).model:
        raise InputError(f"registry: policy.yaml must name the registered model of {uri}")
    version = registry.version(uri)
    with registry.weights(version) as paths:
        safe = [p for p in paths if p.suffix == ".safetensors"] or paths
        if len(safe) != 1:
            raise InputError(
                f"registry: {uri} must hold one file of weights (.safetensors, .pt), got"
                f" {len(safe)}; register one that does, or give --model FILE"
            )
        weights = load_weights(fresh_model(case, rt), safe[0])
    return weights, f"models:/{version.name}/{version.version}"


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
