"""Carriers: what still holds the data after a deletion, and what to do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unlearnkit.cache import Cache, Entry
from unlearnkit.checkpoint import load_weights
from unlearnkit.core.case import Case
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.content import architecture_digest
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.row_selection import rows_to_forget
from unlearnkit.core.row_sets import unpack_rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.ledger.deletion_run import current_model
from unlearnkit.ledger.model_registry import SUFFIXES, ModelRegistry, RegistryError
from unlearnkit.ledger.new_ledger import MODELS, WEIGHTS
from unlearnkit.ledger.policy import LedgerPolicy, read_policy
from unlearnkit.ledger.register import LedgerEntry, Register
from unlearnkit.ledger.subject_rows import KINDS, data_facts, is_current, merge, removals, with_keys
from unlearnkit.ledger.subjects import SubjectKey, SubjectKeys
from unlearnkit.ledger.verify import canonical, sha256
from unlearnkit.unlearning.run_method import fresh_model

DECLARED = {
    "mlflow": "delete the version, then run mlflow gc, and look whether its artefacts are gone",
    "adapters": "its base holds the data: put it on a retrained base, or delete both",
    "others": "overwrite or delete it by its own tools, and note when",
}
"""What to do with what cannot be looked into, by kind."""


class Carrier(FrozenModel):
    """One thing that holds deleted data, or may."""

    kind: str
    """``cached model``, ``cached signals``, ``earlier model``, ``run folder``, ``checkpoint``,
    ``registered version``, ``training data``, or how the policy names it."""

    place: str
    holds: Literal["yes", "possibly"]
    """Yes where digests say so; possibly where nothing shows that it does not."""

    ours: bool
    """Whether ``purge`` removes it."""

    action: str
    """What to do."""


@dataclass(frozen=True)
class Lineage:
    """The training sets of a ledger's models, and which of their rows are deleted by now."""

    deleted_rows: Mapping[str, Tensor]
    """Digest of a training set to the mask ``(N,)`` of its deleted rows."""

    before: tuple[tuple[SubjectKey, str], ...]
    """Keyed digests of sets that had deleted rows; they may no longer be at hand."""

    marks: frozenset[str]
    """Digests of sets, views, models and the network: what names one of them may hold the data."""

    models: Mapping[str, str]
    """Digests of earlier models, each with the batch or attempt that it is of."""

    current: str
    """Digest of the model that is published now."""

    def had(self, data: str) -> bool:
        """Return whether a set of this digest had rows that are deleted by now."""
        return any(key.commit(data.encode()) == keyed_digest for key, keyed_digest in self.before)


def lineage(register: Register, keys: SubjectKeys, case: Case) -> Lineage:
    """Return the training sets that held deleted rows, from the first day on.

    Args:
        register: The batches.
        keys: Of the subjects.
        case: As the user gives it today.

    Returns:
        The sets, by digest.
    """
    case = with_keys(case)
    deleted: dict[str, Tensor] = {}
    before = [
        (key, str(e.body["data"]["before"]["rows"]))
        for e in register.entries("batch")
        if (key := keys.find(e.body["subject_key"])) is not None
    ]
    names = list(removals(register, keys, case).values())
    marks = {architecture_digest(fresh_model(case, Runtime()))}
    for i in range(len(names) + 1):
        assert case.train is not None
        later = {kind: [n for one in names[i:] for n in one[kind]] for kind in KINDS}
        request = merge(case, {kind: list(dict.fromkeys(some)) for kind, some in later.items()})
        mask = torch.zeros(len(case.train), dtype=torch.bool)
        if request is not None:
            mask = rows_to_forget(case.keys.locate(request), case.train)  # type: ignore[arg-type]
        deleted[case.train.key()] = mask
        marks.add(View.all(case.train).key())
        step = None if i == len(names) else merge(case, names[i])
        case = case if step is None else case.after_deletion(step)
    done = {e.body["attempt"] for e in register.entries("certificate")}
    models = {str(register.entry(1).body["model"]): "original"}
    for e in register.entries("attempt"):
        if "model" in e.body:
            kind = "published" if e.sequence in done else "attempt"
            models[e.body["model"]] = f"{kind} {e.body['folder']}"
    current = current_model(register).digest
    models.pop(current, None)
    marks |= set(deleted) | set(models)
    return Lineage(deleted, tuple(before), frozenset(marks), models, current)


def find_carriers(
    folder: Path, case: Case, *, cache: Cache | None = None, register: Register | None = None
) -> list[Carrier]:
    """Return what still holds rows that batches removed: found by digest, or declared.

    Args:
        folder: The ledger.
        case: As the user gives it today.
        cache: Where trained models are kept; that of the user when None.
        register: Its open entries; they are opened when None.

    Returns:
        Carriers; nothing where no batch is done.
    """
    if register is None:
        with Register(folder) as register:
            return find_carriers(folder, case, cache=cache, register=register)
    if not register.entries("certificate"):
        return []
    known = lineage(register, SubjectKeys(folder), case)
    policy = read_policy(folder)
    found = [c for _, c in _in_cache(cache or Cache(), known)]
    found += [c for _, c in _earlier_models(folder, register)]
    found += _in_runs(folder, policy, known)
    found += _checkpoints(folder, policy, known, case)
    found += _registered_versions(folder, policy, known, case)
    found += _training_data(register, SubjectKeys(folder), case)
    for kind, action in DECLARED.items():
        found += [
            Carrier(kind=kind, place=name, holds="possibly", ours=False, action=action)
            for name in getattr(policy.carriers, kind)
        ]
    return found


def _in_cache(cache: Cache, known: Lineage) -> Iterator[tuple[Entry, Carrier]]:
    """Yield what the cache holds of deleted rows: models, outputs, signals, remains."""
    for entry in cache.everything():
        holds = _holds(entry, known)
        if holds is not None:
            signals = entry.key.get("kind") == "signals"
            yield (
                entry,
                Carrier(
                    kind="cached signals" if signals else "cached model",
                    place=str(entry.path),
                    holds=holds,
                    ours=True,
                    action="unlearnkit ledger purge; it can be made again without the data",
                ),
            )


def _holds(entry: Entry, known: Lineage) -> Literal["yes", "possibly"] | None:
    """Return whether a cached thing holds deleted rows; None where it is shown that it does not.

    A model says which rows of which data set it was trained on. What does not say so, as files of
    earlier versions, is a carrier if its key names a set, a model or the network of this ledger.
    """
    kind = entry.key.get("kind")
    if kind in {"damaged", "outdated", "unfinished"}:
        return "possibly"
    if kind == "signals":
        text = _text(entry.path / "signals.json")
        return "yes" if any(mark in text for mark in known.marks) else None
    data = str(entry.facts.get("data"))
    if data in known.deleted_rows:
        mask = known.deleted_rows[data]
        try:
            held = unpack_rows(str(entry.facts.get("held")), len(mask))
        except ValueError:
            return "possibly"
        return "yes" if bool((held & mask).any()) else None
    text = json.dumps([dict(entry.key), dict(entry.facts)])
    return "possibly" if known.had(data) or any(m in text for m in known.marks) else None


def _earlier_models(folder: Path, register: Register) -> Iterator[tuple[Path, Carrier]]:
    """Yield the weights of the ledger that are not the current model's."""
    now = folder / current_model(register).folder / WEIGHTS
    for path in sorted((folder / MODELS).glob(f"*/{WEIGHTS}")):
        if path != now:
            yield (
                path,
                Carrier(
                    kind="earlier model",
                    place=str(path),
                    holds="yes",
                    ours=True,
                    action="unlearnkit ledger purge; its report and certificate stay",
                ),
            )


def _in_runs(folder: Path, policy: LedgerPolicy, known: Lineage) -> Iterator[Carrier]:
    """Yield run folders whose record names a training set or a model with deleted rows."""
    for root in policy.carriers.runs:
        for record in sorted((folder / root).glob("*/run.json")):
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                digests = json.loads(_text(record))["digests"]
                train = str(digests.get("train"))
                mask = known.deleted_rows.get(train)
                with_rows = known.had(train) if mask is None else bool(mask.any())
                models = {digests.get("original"), digests.get("unlearned")}
                if with_rows or models & set(known.models):
                    yield Carrier(
                        kind="run folder",
                        place=str(record.parent),
                        holds="yes",
                        ours=False,
                        action="delete the folder: its original was trained with the rows, and its"
                        " record may name them",
                    )


def _checkpoints(
    folder: Path, policy: LedgerPolicy, known: Lineage, case: Case
) -> Iterator[Carrier]:
    """Yield declared weights, but for those of the current model."""
    for name in policy.carriers.checkpoints:
        root = folder / name
        paths = (
            sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES) if root.is_dir() else [root]
        )
        for path in paths:
            content = _weights_digest(path, case) if path.is_file() else ""
            if not path.exists() or content == known.current:
                continue
            sure = content in known.models
            yield Carrier(
                kind="checkpoint",
                place=str(path),
                holds="yes" if sure else "possibly",
                ours=False,
                action="delete it"
                if sure
                else "no model of this ledger: delete it, unless it was trained without the rows",
            )


def _registered_versions(
    folder: Path, policy: LedgerPolicy, known: Lineage, case: Case
) -> Iterator[Carrier]:
    """Yield versions of the registered model whose weights are not the current model's."""
    if policy.registry is None:
        return
    try:
        registry = ModelRegistry(folder, policy.registry)
        versions = registry.versions()
    except RegistryError as e:
        yield _registered(policy.registry.model, "possibly", f"look again: {e}")
        return
    for version in versions:
        place = f"models:/{version.name}/{version.version}"
        alias = f"move the alias {', '.join(version.aliases)}, " if version.aliases else ""
        files = f"mlflow gc --run-ids {version.run_id}" if version.run_id else version.source
        action = f"{alias}delete the version and its run, then its files: {files}"
        try:
            with registry.weights(version) as paths:
                contents = {_weights_digest(path, case) for path in paths}
        except RegistryError as e:
            yield _registered(place, "possibly", f"{action}; its files cannot be read now: {e}")
            continue
        if contents & set(known.models):
            yield _registered(place, "yes", action)
        elif contents != {known.current}:
            stranger = "no model of this ledger: unless it was trained without the rows, "
            yield _registered(place, "possibly", stranger + action)


def _registered(place: str, holds: Literal["yes", "possibly"], action: str) -> Carrier:
    return Carrier(kind="registered version", place=place, holds=holds, ours=False, action=action)


def _training_data(register: Register, keys: SubjectKeys, case: Case) -> Iterator[Carrier]:
    """Yield the case itself where it still has the rows."""
    if not is_current(register, keys, with_keys(case)):
        yield Carrier(
            kind="training data",
            place=str(register.entry(1).body["case"]),
            holds="yes",
            ours=False,
            action="take the deleted rows out of the data that the case reads; give the rows keys"
            " first, so that the others keep their names",
        )


def _weights_digest(path: Path, case: Case) -> str:
    """Return the digest of a checkpoint's weights; empty where they are of another network."""
    if path.suffix == ".safetensors":
        with suppress(OSError, SafetensorError):
            return digest({name: tensor_digest(t) for name, t in load_file(path).items()})
    with suppress(InputError):
        return model_digest(load_weights(fresh_model(case, Runtime()), path))
    return ""


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text("utf-8")
    return ""


def purge(
    folder: Path, case: Case, *, destroy_key: bool = False, cache: Cache | None = None
) -> LedgerEntry:
    """Remove the carriers that are ours, look again, and record both.

    Args:
        folder: The ledger.
        case: As the user gives it today.
        destroy_key: Whether to destroy the key of the pseudonyms as well. Nobody can then tell who
            was deleted; the rows must be out of the case before.
        cache: Where trained models are kept; that of the user when None.

    Returns:
        The entry: what was removed, what is left of ours, and what others must remove.

    Raises:
        InputError: If a worker is at work, or the key is still needed.
    """
    cache = cache or Cache()
    with Register(folder) as register:
        lease = register.take_lease()
        if lease is None:
            raise InputError("purge: a worker is at work; purge when it has ended")
        with lease:
            finish_destruction(register, SubjectKeys(folder))
            removed = _remove(folder, register, case, cache)
            left = find_carriers(folder, case, cache=cache, register=register)
            others = [c for c in left if not c.ours]
            body = {
                "removed": removed,
                "left": [c.kind for c in left if c.ours],
                "others": {k: sum(c.kind == k for c in others) for k in {c.kind for c in others}},
                "list": sha256(canonical([c.model_dump(mode="json") for c in left])),
            }
            entry = register.append("purge", body, lease)
            if destroy_key:
                _check_key_free(register, left)
                keys = SubjectKeys(folder)
                gone = keys.ids()
                new = keys.create()
                facts = {
                    "destroyed_keys": gone, "subject_key": new.id,
                    "data": data_facts(with_keys(case), new),
                }  # fmt: skip
                entry = register.append("subject_key", {**body, **facts}, lease)
                finish_destruction(register, keys)
    return entry


def _remove(folder: Path, register: Register, case: Case, cache: Cache) -> list[dict[str, str]]:
    """Remove our carriers; return kind and content address of each that is gone."""
    removed = []
    if register.entries("certificate"):
        known = lineage(register, SubjectKeys(folder), case)
        for entry, carrier in list(_in_cache(cache, known)):
            if cache.remove(entry):
                removed.append({"kind": carrier.kind, "name": entry.name})
        for path, carrier in list(_earlier_models(folder, register)):
            removed.append({"kind": carrier.kind, "name": sha256(path.read_bytes())})
            path.unlink()
    return removed


def finish_destruction(register: Register, keys: SubjectKeys) -> None:
    """Destroy the keys that entries say are destroyed; also those of a call that was killed."""
    keys.destroy(n for e in register.entries("subject_key") for n in e.body["destroyed_keys"])


def _check_key_free(register: Register, left: Sequence[Carrier]) -> None:
    """Refuse to destroy a key that something still needs."""
    open_ = register.requests("waiting", "running", "rejected")
    if open_:
        raise InputError(
            f"purge: {len(open_)} requests still need the key; answer them first: unlearnkit ledger"
            " run --now"
        )
    held = [c.kind for c in left if c.ours or c.kind == "training data"]
    if held:
        raise InputError(
            f"purge: the key still finds rows in: {', '.join(sorted(set(held)))}; remove them, then"
            " destroy the key"
        )
