"""State on disk: safetensors with a JSON file that names and digests them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, read_text, write_bytes, write_text
from unlearnkit.linear.losses import Array
from unlearnkit.linear.removal_state import Factors, RemovalState

NAME = "state.json"
FORMAT = 1
"""Raised when a state of an older version can no longer be read."""

ARRAYS = ("w", "anchor", "tilt", "removed_rows", "gradient_mean")
NUMBERS = ("spectral", "row_norm", "gradient_spread", "residual", "budget_spent")


def write_state(
    folder: Path,
    identity: Mapping[str, str],
    state: RemovalState,
    released: Array,
    extra: Mapping[str, Any],
) -> Path:
    """Write a state so that a kill at any moment leaves the old one or the new one.

    The tensors come first, in a file named by their digest; then the JSON file that names them
    takes the place of the old one in one step; then tensors that nothing names are removed.

    Args:
        folder: Where; made if absent.
        identity: Class and settings of the model.
        state: What is written.
        released: The published weights ``(K, D)``.
        extra: More facts that JSON can hold.

    Returns:
        The folder.
    """
    tensors = {name: np.ascontiguousarray(getattr(state, name)) for name in ARRAYS}
    tensors["released"] = np.ascontiguousarray(released)
    if state.factors is not None:
        for f in fields(Factors):
            tensors[f"factors.{f.name}"] = np.ascontiguousarray(getattr(state.factors, f.name))
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = f"state-{digest[:16]}.safetensors"
    write_bytes(folder / name, content)
    record = {
        "format": FORMAT,
        "model": dict(identity),
        "tensors": name,
        "sha256": digest,
        "numbers": {name: getattr(state, name) for name in NUMBERS},
        "new_labels": {str(k): v for k, v in state.new_labels.items()},
        "dropped_columns": list(state.dropped_columns),
        "history": list(state.history),
        "releases": state.releases,
        "extra": dict(extra),
    }
    write_text(folder / NAME, json.dumps(record, indent=1))
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            with suppress(OSError):
                old.unlink()
    return folder


def read_state(
    folder: Path, identity: Mapping[str, str]
) -> tuple[RemovalState, Array, dict[str, Any]]:
    """Return the state in a folder, the published weights and the facts written with them.

    Args:
        folder: Where ``write_state`` wrote.
        identity: Class and settings that must be the same.

    Returns:
        State, weights ``(K, D)`` and facts.

    Raises:
        InputError: If it is damaged, of another version or of another model.
    """
    path = folder / NAME
    remedy = "give the folder that save wrote"
    try:
        record = json.loads(read_text(path, "load", what=remedy))
        kind = record["format"]
        saved = dict(record["model"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"load: {str(path)!r} is no state of a linear model; {remedy}") from None
    if kind != FORMAT:
        raise InputError(f"load: state of format {kind!r}, this version reads {FORMAT}; fit again")
    other = [k for k in {**saved, **identity} if saved.get(k) != identity.get(k)]
    if other:
        k = other[0]
        raise InputError(
            f"load: a state of another model: {k} is {saved.get(k)} there and {identity.get(k)}"
            " here; build the model with the settings it was saved with"
        )
    file = folder / Path(str(record["tensors"])).name
    check_regular(file, "load", remedy)
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise InputError(f"load: {str(file)!r} is not what was saved; fit again, or use a backup")
    try:
        tensors = load(content)
    except SafetensorError as e:
        raise InputError(f"load: {str(file)!r} cannot be read: {e}; fit again") from None
    factors = None
    if "factors.inverse" in tensors:
        factors = Factors(**{f.name: tensors[f"factors.{f.name}"] for f in fields(Factors)})
    values: dict[str, Any] = {name: tensors[name] for name in ARRAYS}
    values |= {name: float(record["numbers"][name]) for name in NUMBERS}
    state = RemovalState(
        **values,
        new_labels={int(k): float(v) for k, v in record["new_labels"].items()},
        dropped_columns=tuple(record["dropped_columns"]),
        factors=factors,
        history=tuple(record["history"]),
        releases=int(record["releases"]),
    )
    return state, tensors["released"], dict(record["extra"])
