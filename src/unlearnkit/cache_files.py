"""Files of the cache: which of a folder's files the library wrote, known by their content."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from unlearnkit.core.digest import digest

PART = ".part-"
"""How the folder of an entry that is being written begins."""

MARK = {"written by": "unlearnkit cache"}
"""What the header of kept tensors says."""

_ADDRESS = "[0-9a-f]{64}"
_KEPT = re.compile(rf"({_ADDRESS})\.(json|safetensors)")
_SIGNALS = re.compile(
    r"signals\.json|models\.jsonl|margins\.f64|codes\.u8|errors\.f32|residuals\.f64"
    r"|\.head\.lock|\.lock|\.signals\.json\..+\.part"
)


def written_here(path: Path) -> bool:
    """Return whether a file holds tensors that the cache wrote, by its header."""
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as f:
        return bool((f.metadata() or {}) == MARK)
    return False


def is_outdated(side: Path) -> bool:
    """Return whether a file is a sidecar at least by its key, whose digest is its name."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return digest(json.loads(side.read_text(encoding="utf-8"))["key"]) == side.stem
    return False


def is_signals(folder: Path) -> bool:
    """Return whether a folder holds signals: its head's digest is its name."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    with suppress(OSError, ValueError, TypeError):
        return digest(json.loads((folder / "signals.json").read_text("utf-8"))) == folder.name
    return False


def is_unfinished(path: Path) -> bool:
    """Return whether a file or folder is what is left of an entry that was being written.

    Tensors without a sidecar tell by their header, a sidecar without tensors by its key. What is in
    a folder of a writer bears the names that only content addresses have, and nothing else is
    there.
    """
    if path.name.startswith(PART) and path.is_dir() and not path.is_symlink():
        names = [_KEPT.fullmatch(p.name) for p in path.iterdir()]
        return all(m is not None and m[1][:2] == path.parent.name for m in names)
    if not _plain(path):
        return False
    kept = _KEPT.fullmatch(path.name)
    if kept is not None and kept[2] == "safetensors":
        return written_here(path)
    return kept is not None and is_outdated(path)


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a kept folder that this library writes there; no others."""
    pattern = _KEPT if folder.name.startswith(PART) else _SIGNALS
    yield from (p for p in sorted(folder.iterdir()) if pattern.fullmatch(p.name) and _plain(p))


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
