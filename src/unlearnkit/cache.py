"""Recomputable things by content address: trained weights under the digest of every input."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.folders import LAYOUTS, default_root

SIGNALS = "signals"
"""Folder of the margins that strong audits keep, a folder for each."""


@dataclass(frozen=True)
class Entry:
    """One kept thing."""

    name: str
    path: Path
    key: Mapping[str, Any]
    facts: Mapping[str, Any]
    size: int
    used: float
    """When it was last read or written, in seconds since the epoch."""


@dataclass(frozen=True)
class Kept:
    """Tensors from the cache, with the facts that were kept beside them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    hit: bool


class Cache:
    """Tensors by the digest of everything that they depend on.

    Safe for several processes: an entry is made once, others wait for it; it appears whole, by a
    rename, with its whole key beside it.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else Path(root)

    def get(
        self,
        key: Mapping[str, Any],
        make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
    ) -> Kept:
        """Return the tensors of a key, making and keeping them the first time.

        Args:
            key: Every input, by content.
            make: Computes tensors, and facts about them such as what they cost.

        Returns:
            Tensors and facts.

        Raises:
            InputError: If a kept file is damaged or belongs to another key, or the folder cannot
                be written.
        """
        name = digest(key)
        path = self.root / name[:2] / f"{name}.safetensors"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if path.exists() and path.with_suffix(".json").exists():
                    return self._load(path, key)
                tensors, facts = make()
                whole = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
                self._save(path, whole, {"key": dict(key), "facts": facts})
                return Kept(whole, facts, hit=False)
        except OSError as e:
            raise InputError(
                f"cache: cannot use {str(self.root)!r}: {e.strerror or e}; set UNLEARNKIT_CACHE to"
                " another folder"
            ) from None

    def fill(
        self,
        keys: Sequence[Mapping[str, Any]],
        make: Callable[[list[int]], Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]],
    ) -> list[int]:
        """Make those of several keys that are not there, and keep each as soon as it is made.

        Args:
            keys: Every input of each, by content.
            make: From the positions of missing keys to what they lead to, in any order: position,
                tensors, facts. Not called when nothing is missing.

        Returns:
            The positions of the keys that were made now.

        Raises:
            InputError: If the folder cannot be written.
        """
        paths = [self.root / n[:2] / f"{n}.safetensors" for n in map(digest, keys)]
        try:
            with ExitStack() as held:
                for path in sorted(set(paths)):  # one order for all processes: none waits in a ring
                    path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(path.with_suffix(".lock")))
                lacking = [i for i, key in enumerate(keys) if key not in self]
                for i, tensors, facts in make(lacking) if lacking else ():
                    whole = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
                    self._save(paths[i], whole, {"key": dict(keys[i]), "facts": facts})
                return lacking
        except OSError as e:
            raise InputError(
                f"cache: cannot use {str(self.root)!r}: {e.strerror or e}; set UNLEARNKIT_CACHE to"
                " another folder"
            ) from None

    def facts(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what is known of a kept thing without reading it; None where it is not kept."""
        if key not in self:
            return None
        name = digest(key)
        try:
            side = (self.root / name[:2] / f"{name}.json").read_text(encoding="utf-8")
            return dict(json.loads(side)["facts"])
        except (OSError, ValueError, KeyError):  # damaged: told when it is loaded
            return None

    def __contains__(self, key: Mapping[str, Any]) -> bool:
        name = digest(key)
        side = self.root / name[:2] / f"{name}.json"
        return side.exists() and side.with_suffix(".safetensors").exists()

    def entries(self) -> Iterator[Entry]:
        """Yield what is kept; of a damaged entry the key is ``{"kind": "damaged"}``."""
        for side in sorted(self.root.glob("??/*.json")):
            path = side.with_suffix(".safetensors")
            if path.exists():
                try:
                    held = json.loads(side.read_text(encoding="utf-8"))
                    key, facts = held["key"], held["facts"]
                except (ValueError, KeyError):
                    key, facts = {"kind": "damaged"}, {}
                stat = path.stat()
                yield Entry(path.stem, path, key, facts, stat.st_size, stat.st_mtime)

    def everything(self) -> Iterator[Entry]:
        """Yield all that takes room: tensors, margins, layouts, and what killed processes left.

        Yields:
            Entries; the key of margins is ``{"kind": "signals"}``, that of a study's layout
            ``{"kind": "layout"}``, that of remains of a process that was killed while it wrote
            ``{"kind": "unfinished"}``.
        """
        yield from self.entries()
        for path in sorted((self.root / LAYOUTS).glob("*")):
            if path.suffix != ".lock":
                yield from _entry(path, "layout" if path.suffix == ".json" else "unfinished")
        for folder in sorted((self.root / SIGNALS).glob("*")):
            if folder.is_dir():
                yield from _entry(folder, "signals")
        for path in sorted(self.root.glob("??/*")):
            whole = path.with_suffix(".json").exists() and path.with_suffix(".safetensors").exists()
            if path.suffix != ".lock" and not whole:
                yield from _entry(path, "unfinished")

    def remove(self, entry: Entry) -> bool:
        """Forget one kept thing.

        Args:
            entry: What it is.

        Returns:
            Whether it is gone; it stays where another process is at work on it.

        Raises:
            InputError: If it cannot be removed.
        """
        path = entry.path
        # A folder that was being written is named by chance, and what is in it by what it is.
        inner = next(path.iterdir(), path) if path.name.startswith(_PART) else path
        lock = (path.parent / inner.name).with_suffix(".lock")
        if path.parent == self.root / SIGNALS:
            lock = path / ".lock"
        try:
            with FileLock(lock, timeout=0):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    for one in {path, path.with_suffix(".json"), path.with_suffix(".safetensors")}:
                        one.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        except Timeout:
            return False
        except OSError as e:
            raise InputError(f"cache: cannot remove {str(path)!r}: {e.strerror or e}") from None
        return True

    @staticmethod
    def _load(path: Path, key: Mapping[str, Any]) -> Kept:
        side = path.with_suffix(".json")
        try:
            held = json.loads(side.read_text(encoding="utf-8"))
            tensors = load_file(path)
        except (ValueError, SafetensorError) as e:
            raise InputError(f"cache: {str(path)!r} is damaged ({e}); delete it") from None
        if held.get("key") != json.loads(json.dumps(dict(key))):
            raise InputError(f"cache: {str(side)!r} does not match its name; delete it")
        os.utime(path)
        return Kept(tensors, held["facts"], hit=True)

    @staticmethod
    def _save(path: Path, tensors: dict[str, Tensor], side: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PART) as folder:
            part = Path(folder) / path.name
            save_file(tensors, part)
            note = part.with_suffix(".json")
            note.write_text(json.dumps(side, sort_keys=True), encoding="utf-8")
            part.replace(path)
            note.replace(path.with_suffix(".json"))


_PART = ".part-"
"""How the folder of an entry that is being written begins."""


def _entry(path: Path, kind: str) -> Iterator[Entry]:
    """Yield an entry that is no tensors under a key; nothing if it vanishes meanwhile."""
    with suppress(FileNotFoundError):
        stats = [p.stat() for p in (path, *path.rglob("*"))]
        size = sum(s.st_size for s in (stats[1:] if path.is_dir() else stats))
        yield Entry(path.name, path, {"kind": kind}, {}, size, max(s.st_mtime for s in stats))
