"""Weights on disk: safetensors, or torch files that hold nothing but weights."""

from __future__ import annotations

import io
import mmap
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, write_bytes
from unlearnkit.core.module_state import all_finite
from unlearnkit.core.runtime import Reporter
from unlearnkit.core.text import one_line
from unlearnkit.core.wrapped_models import strip_prefixes, unwrap

_TORCH = {".pt", ".pth", ".bin", ".ckpt"}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MOST_PICKLED = 32 * 2**20
"""Most bytes of names and shapes, which stand apart from the tensors."""

_ASKS_MEMORY = b"bytearray"
"""The one thing that torch lets a pickle build whose size is not that of the file."""


def save_weights(model: nn.Module, path: str | Path) -> Path:
    """Write a model's weights, whole or not at all.

    Tied weights are written under each of their names, so that any reader finds all of them.

    Args:
        model: Any module.
        path: Ends in ``.safetensors``, or in ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` for torch's
            own format.

    Returns:
        The path.

    Raises:
        InputError: If the ending is another, or the place cannot be written.
    """
    path = Path(path)
    state = {
        name: t.detach().cpu().contiguous().clone()
        for name, t in unwrap(model).state_dict().items()
        if isinstance(t, Tensor)
    }
    if path.suffix == ".safetensors":
        return write_bytes(path, safetensors.torch.save(state))
    if path.suffix not in _TORCH:
        raise InputError(
            f"checkpoint: {path.name!r} must end in .safetensors or {', '.join(sorted(_TORCH))}"
        )
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return write_bytes(path, buffer.getvalue())


def load_weights(
    model: nn.Module, path: str | Path, *, reporter: Reporter | None = None
) -> nn.Module:
    """Fill a model with the weights of a file; on an error the model is as it was.

    Reads safetensors, and torch files that load with ``weights_only=True``: a state dict, or a
    dict with one under ``state_dict``, ``model_state_dict`` or ``model``. Names that all start
    with ``module.``, ``_orig_mod.``, ``model.``, ``_module.`` or several of them lose it, where the
    model has none. Numbers are converted to the model's precision.

    Args:
        model: Of the architecture that the weights were saved from; changed in place.
        path: The file.
        reporter: Hears which prefix was taken off.

    Returns:
        The same model.

    Raises:
        InputError: If the file cannot be read, is a pickle of more than weights, belongs to
            another architecture, or holds values that are not finite.
    """
    path = Path(path)
    who = f"checkpoint {path.name}"
    want = {k: t for k, t in unwrap(model).state_dict().items() if isinstance(t, Tensor)}
    found, prefix = strip_prefixes(_read(path), want)
    if prefix and reporter is not None:
        reporter.note(f"{who}: names were read without {prefix}, which a wrapper adds")
    _untie(want, found, who)
    for name, ref in want.items():
        if name not in found:
            raise InputError(
                f"{who}: has no {name}, which has shape {tuple(ref.shape)} in the model; it is of"
                " another architecture"
            )
        if found[name].shape != ref.shape:
            raise InputError(
                f"{who}: {name} has shape {tuple(found[name].shape)}, in the model"
                f" {tuple(ref.shape)}; it is of another architecture"
            )
        if found[name].is_floating_point() != ref.is_floating_point():
            raise InputError(f"{who}: {name} is {found[name].dtype}, in the model {ref.dtype}")
    for name, t in found.items():
        if name not in want:
            raise InputError(
                f"{who}: {name}, shape {tuple(t.shape)}, is not in the model; it is of another"
                " architecture"
            )
    check_finite({k: t.to(want[k].dtype) for k, t in found.items()}, who)
    with torch.no_grad():
        for name, ref in want.items():
            ref.copy_(found[name])
    return model


def check_finite(tensors: Mapping[str, object], who: str) -> None:
    """Refuse weights that are not finite.

    Args:
        tensors: A state dict; what is no tensor in it is passed over.
        who: What to call it.

    Raises:
        InputError: Naming the first tensor that is not finite.
    """
    for name, t in tensors.items():
        if isinstance(t, Tensor) and t.is_floating_point() and not all_finite(t):
            bad = int((~torch.isfinite(t)).sum())
            raise InputError(
                f"{who}: {name} has {bad} of {t.numel()} values that are not finite; load another"
                " checkpoint"
            )


def _check_size(path: Path) -> None:
    """Refuse a file that would become much larger in memory than it is on disk.

    The formats store tensors as they are; what is compressed, stored twice or asks for memory by
    itself was not made by ``torch.save``.

    Args:
        path: The file.

    Raises:
        InputError: If it is such a file, or no regular file.
    """
    check_regular(path, "checkpoint")
    if path.suffix == ".safetensors":
        return
    if not zipfile.is_zipfile(path):
        with path.open("rb") as f:
            if os.fstat(f.fileno()).st_size:
                with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    _check_script(path, content.find(_ASKS_MEMORY) >= 0)
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        packed = any(p.compress_type != zipfile.ZIP_STORED for p in parts)
        size, held = sum(p.file_size for p in parts), path.stat().st_size
        if packed or size > held:
            raise InputError(
                f"checkpoint: {str(path)!r} has {held:,} bytes and would take {size:,}: it is"
                " compressed, which torch.save never does; save the weights again with torch.save"
            )
        scripts = [p for p in parts if p.filename.endswith(".pkl")]
        large = sum(p.file_size for p in scripts) > _MOST_PICKLED
        _check_script(path, large or any(_ASKS_MEMORY in archive.read(p) for p in scripts))


def _check_script(path: Path, wrong: bool) -> None:
    if wrong:
        raise InputError(
            f"checkpoint: {str(path)!r} holds more than weights; save model.state_dict()"
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        _check_size(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on files that are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise InputError(
            f"checkpoint: {str(path)!r} is a pickle that holds more than weights, which can run"
            " code; convert it where you trust it: torch.save(model.state_dict(), path)"
        ) from None
    except OSError as e:
        raise InputError(f"checkpoint: cannot read {str(path)!r}: {e.strerror or e}") from None
    except (
        *(SafetensorError, RuntimeError, EOFError, KeyError, ValueError, MemoryError),
        *(zipfile.BadZipFile, NotImplementedError, IndexError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as e:
        why = one_line((str(e).strip().splitlines() or [type(e).__name__])[0], 100)
        raise InputError(
            f"checkpoint: {str(path)!r} is damaged or no checkpoint ({why}); copy it again"
        ) from None
    return _plain(content, path)


def _plain(content: Any, path: Path) -> dict[str, Tensor]:
    """Take the state dict out of what training scripts write around it."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(
            f"checkpoint: {str(path)!r} holds no state dict, got {type(content).__name__}; save"
            " model.state_dict()"
        )
    return {str(k): t for k, t in content.items()}


def _untie(want: Mapping[str, Tensor], found: dict[str, Tensor], who: str) -> None:
    """Give every name of a tied weight its value; some writers keep one name only."""
    first: dict[tuple[object, ...], str] = {}
    for name, ref in want.items():
        if not ref.numel() or name not in found:
            continue
        held = first.setdefault(_place(ref), name)
        if held != name and not torch.equal(found[held], found[name]):
            raise InputError(f"{who}: {held} and {name} differ, but are one tensor in the model")
    for name, ref in want.items():
        if name not in found and _place(ref) in first:
            found[name] = found[first[_place(ref)]]


def _place(t: Tensor) -> tuple[object, ...]:
    return (t.device, t.data_ptr(), t.storage_offset(), t.shape, t.stride())
