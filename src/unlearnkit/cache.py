"""Recomputable things by content address: trained weights under the digest of every input."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearnkit.cache_files import (
    MARK,
    PART,
    is_outdated,
    is_signals,
    is_unfinished,
    own_files,
    written_here,
)
from unlearnkit.core.cache_folder import SIGNALS, default_root
from unlearnkit.core.digest import digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.ranks import from_first, is_first


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
class CachedTensors:
    """Tensors from the cache, with the facts that were kept next to them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    hit: bool


class Cache:
    """Tensors by the digest of everything that they depend on.

    Safe for several processes: an entry is made once, others wait for it; it appears whole, by a
    rename, with its whole key next to it and the digest of its tensors, which is checked when they
    are read. What is kept is served from a folder that cannot be written, too. Of the ranks of a
    run the first alone reads and writes the folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else Path(root)

    def get(
        self,
        key: Mapping[str, Any],
        make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
    ) -> CachedTensors:
        """Return the tensors of a key, making and keeping them the first time.

        Args:
            key: Every input, by content.
            make: Computes tensors, and facts about them such as what they cost. Not called where
                the folder cannot be written.

        Returns:
            Tensors and facts. A kept file that is damaged or belongs to another key, and a folder
            that cannot be written, are an ``InputError``.
        """
        path = self._path(key)
        if key in self:
            return from_first(lambda: self._load(path, key))
        with self._held([path]):
            if key in self:  # made by another process meanwhile
                return from_first(lambda: self._load(path, key))
            tensors, facts = make()
            whole = _whole(tensors)
            self._save(path, whole, key, facts)
            return CachedTensors(whole, facts, hit=False)

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
            The positions of the keys that were made now. A folder that cannot be written is an
            ``InputError``.
        """
        if all(key in self for key in keys):
            return []
        paths = [self._path(key) for key in keys]
        with self._held(paths):
            lacking = [i for i, key in enumerate(keys) if key not in self]
            for i, tensors, facts in make(lacking) if lacking else ():
                self._save(paths[i], _whole(tensors), keys[i], facts)
            return lacking

    def facts(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what is known of a kept thing without reading it; None where it is not kept."""
        if key not in self:
            return None
        side = self._path(key).with_suffix(".json")
        try:
            return from_first(lambda: dict(_sidecar(side)["facts"]))
        except (OSError, ValueError):  # damaged: told when it is loaded
            return None

    def __contains__(self, key: Mapping[str, Any]) -> bool:
        path = self._path(key)
        return from_first(lambda: path.with_suffix(".json").exists() and path.exists())

    def entries(self) -> Iterator[Entry]:
        """Yield the kept tensors that this library wrote, known by their content.

        Yields:
            Entries; the key of one that is damaged is ``{"kind": "damaged"}``, that of one whose
            sidecar an earlier version wrote is ``{"kind": "outdated"}``.
        """
        for side in sorted(self.root.glob("??/*.json")):
            path = side.with_suffix(".safetensors")
            with suppress(FileNotFoundError):
                stat, known = path.stat(), _known(side)
                if known is not None:
                    yield Entry(path.stem, path, *known, stat.st_size, stat.st_mtime)

    def everything(self) -> Iterator[Entry]:
        """Yield all that takes room: tensors, margins, and what killed processes left.

        Yields:
            Entries that this library wrote, known by their content; the key of margins is
            ``{"kind": "signals"}``, that of
            remains of a process that was killed while it wrote ``{"kind": "unfinished"}``.
        """
        whole = list(self.entries())
        yield from whole
        known = {p for e in whole for p in (e.path, e.path.with_suffix(".json"))}
        for folder in sorted((self.root / SIGNALS).glob("*")):
            if is_signals(folder):
                yield from _entry(folder, "signals")
        for path in sorted(self.root.glob("??/*")):
            if path not in known and is_unfinished(path):
                yield from _entry(path, "unfinished")

    def remove(self, entry: Entry) -> bool:
        """Forget one kept thing; files that this library did not write stay where they are.

        Args:
            entry: What it is.

        Returns:
            Whether it is gone; it stays where another process is at work on it.

        Raises:
            InputError: If it cannot be removed.
        """
        path = entry.path
        # A folder that was being written is named by chance, and what is in it by what it is.
        inner = next(iter(own_files(path)), path) if path.name.startswith(PART) else path
        lock = (path.parent / inner.name).with_suffix(".lock")
        if path.parent == self.root / SIGNALS:
            lock = path / ".lock"
        try:
            with FileLock(lock, timeout=0):
                if path.is_dir():
                    for one in own_files(path):
                        one.unlink(missing_ok=True)
                else:
                    for one in {path, path.with_suffix(".json"), path.with_suffix(".safetensors")}:
                        one.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        except Timeout:
            return False
        except OSError as e:
            raise InputError(f"cache: cannot remove {str(path)!r}: {e.strerror or e}") from None
        return True

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = digest(key)
        return self.root / name[:2] / f"{name}.safetensors"

    @contextmanager
    def _held(self, paths: Sequence[Path]) -> Iterator[None]:
        """Hold the locks of some entries: no other process makes them, and all can be written."""
        with ExitStack() as held:
            if not is_first():  # of ranks, which make an entry together: the first keeps it
                paths = ()
            with self._told("cannot use"):
                for path in sorted(set(paths)):  # one order for all processes: no ring of waiting
                    path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(path.with_suffix(".lock")))
            yield

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Tell what the file system refuses; errors of those who make entries are their own."""
        try:
            yield
        except (OSError, SafetensorError) as e:
            told = (getattr(e, "strerror", None) or str(e)).partition("\n")[0]
            raise InputError(
                f"cache: {what} {str(self.root)!r}: {told}; free space there, or set"
                " UNLEARNKIT_CACHE to another folder"
            ) from None

    @staticmethod
    def _load(path: Path, key: Mapping[str, Any]) -> CachedTensors:
        side = path.with_suffix(".json")
        try:
            held = _sidecar(side)
            tensors = load_file(path)
        except (OSError, ValueError, SafetensorError) as e:
            raise InputError(
                f"cache: {str(path)!r} is damaged ({e}); delete it, to make it again"
            ) from None
        if held["key"] != json.loads(json.dumps(dict(key))):
            raise InputError(f"cache: {str(side)!r} does not match its name; delete it")
        for what, given, want in (
            (path, _digests(tensors), held["tensors"]),
            (side, _seal(held), held["seal"]),
        ):
            if given != want:
                raise InputError(
                    f"cache: {str(what)!r} is damaged: not what was written; delete it, to make it"
                    " again"
                )
        with suppress(OSError):  # a folder that is only read
            os.utime(path)
        return CachedTensors(tensors, held["facts"], hit=True)

    def _save(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        key: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        if not is_first():
            return
        side = {"key": dict(key), "facts": dict(facts), "tensors": _digests(tensors)}
        text = json.dumps({**side, "seal": _seal(side)}, sort_keys=True)
        with (
            self._told("cannot write to"),
            tempfile.TemporaryDirectory(dir=path.parent, prefix=PART) as folder,
        ):
            part = Path(folder) / path.name
            note = part.with_suffix(".json")
            note.write_text(text, encoding="utf-8")
            save_file(tensors, part, metadata=MARK)
            # The sidecar goes first and comes last: without it, tensors are not believed.
            path.with_suffix(".json").unlink(missing_ok=True)
            part.replace(path)
            note.replace(path.with_suffix(".json"))


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: tensor_digest(t) for name, t in tensors.items()}


def _seal(side: Mapping[str, Any]) -> str:
    """Return the digest of a sidecar, itself left out."""
    return digest({name: part for name, part in side.items() if name != "seal"})


def _sidecar(path: Path) -> dict[str, Any]:
    """Return what stands next to kept tensors; ValueError where that is no sidecar."""
    held = json.loads(path.read_text(encoding="utf-8"))
    parts = {"key": dict, "facts": dict, "tensors": dict, "seal": str}
    if not isinstance(held, dict):
        raise ValueError(f"its sidecar holds a {type(held).__name__}")
    for name, kind in parts.items():
        if not isinstance(held.get(name), kind):
            raise ValueError(f"its sidecar lacks {name!r}")
    return held


def _known(side: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return key and facts of kept tensors by their sidecar; None where others wrote the file."""
    try:
        held = _sidecar(side)
        if _seal(held) == held["seal"] and digest(held["key"]) == side.stem:
            return held["key"], held["facts"]
    except ValueError:
        if is_outdated(side):
            return {"kind": "outdated"}, {}
    return ({"kind": "damaged"}, {}) if written_here(side.with_suffix(".safetensors")) else None


def _entry(path: Path, kind: str) -> Iterator[Entry]:
    """Yield an entry that is no tensors under a key; nothing if it vanishes meanwhile."""
    with suppress(FileNotFoundError):
        stats = [p.stat() for p in (path, *(own_files(path) if path.is_dir() else ()))]
        size = sum(s.st_size for s in (stats[1:] if path.is_dir() else stats))
        yield Entry(path.name, path, {"kind": kind}, {}, size, max(s.st_mtime for s in stats))
