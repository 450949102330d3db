"""Checkpoints of shards: kept in memory, or in a folder that a kill cannot damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import load, save

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, read_text, write_bytes, write_text
from unlearnkit.sisa.shard_plan import Positions, ShardPlan

NAME = "sisa.json"
LOCK = "sisa.lock"
FORMAT = 1
"""Raised when a state of an older version can no longer be read."""


@dataclass
class ShardState:
    """What a model of shards is, apart from its rows."""

    identity: dict[str, str]
    """Settings of the training; a state of other settings is refused."""

    plan: ShardPlan
    removed_ids: set[int]
    """Ids of the rows that were removed."""

    digests: list[list[str]]
    """Content of the rows that are left, by shard and slice."""

    stages: list[list[Any]]
    """For each shard the model after each slice, as far as it is trained."""


@dataclass
class ShardMemory:
    """Checkpoints in memory."""

    folder: Path | None = field(default=None, init=False)

    def guard(self) -> Any:
        """Return a context in which nobody else changes the state."""
        return nullcontext()

    def write(self, state: ShardState) -> None:
        """Keep a state: in memory there is nothing to do."""

    def clean(self, state: ShardState) -> None:
        """Remove what a kill has left: in memory there is nothing to do."""

    def keep(self, shard: int, stage: int, trained: Any, dump: Any) -> Any:
        """Return what stands for a trained model in a state: the model itself."""
        return trained

    def restore(self, kept: Any, restore: Any) -> Any:
        """Return the model that was kept."""
        return kept


@dataclass(frozen=True)
class KeptFile:
    """A file of a folder, by name and content."""

    name: str
    sha256: str


@dataclass
class ShardFolder:
    """Checkpoints in a folder: a kill at any moment leaves the old state or the new one.

    Models come first, in files named by their content; then a JSON file that names them takes the
    place of the old one in one step; then files that nothing names are removed. They hold no
    training row and no key, only numbers made of keys.
    """

    folder: Path
    _written: str | None = None
    """What this object last wrote or read."""

    _plan_file: KeptFile | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Hold the folder; refuse one that another process holds or has changed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                if self._written is not None and self._text() != self._written:
                    raise InputError(
                        f"sisa: another process has changed the state in {str(self.folder)!r}; call"
                        " load, then ask again"
                    )
                yield
        except Timeout:
            raise InputError(
                f"sisa: another process is at work in {str(self.folder)!r}; wait until it is done"
            ) from None

    @property
    def there(self) -> bool:
        """Return whether the folder holds a state."""
        return (self.folder / NAME).exists()

    def write(self, state: ShardState) -> None:
        """Write a state, and remove the files that it no longer names."""
        plan = state.plan
        kept = self._plan_file or self._keep_plan(plan)
        record = {
            "format": FORMAT,
            "model": state.identity,
            "shards": plan.shards,
            "slices": plan.slices,
            "plan": vars(kept),
            "removed": sorted(state.removed_ids),
            "rows": state.digests,
            "stages": [[f and vars(f) for f in shard] for shard in state.stages],
        }
        text = json.dumps(record, indent=1)
        write_text(self.folder / NAME, text)
        self._written = text
        self._plan_file = kept
        self.clean(state)

    def keep(self, shard: int, stage: int, trained: Any, dump: Any) -> KeptFile | None:
        """Write a trained model and return its file; None stands for an untrained one."""
        if trained is None:
            return None
        content = dump(trained)
        kept = _named(content, f"shard-{shard:04d}-{stage:03d}")
        write_bytes(self.folder / kept.name, content)
        return kept

    def restore(self, kept: KeptFile | None, restore: Any) -> Any:
        """Return the model in a file."""
        return None if kept is None else restore(self._content(kept))

    def read(self, identity: Mapping[str, str]) -> ShardState:
        """Return the state in the folder.

        Args:
            identity: Settings that must be the same.

        Returns:
            The state; models stay on disk until they are needed.

        Raises:
            InputError: If it is damaged, of another version or of other settings.
        """
        text, record = self._record()
        try:
            kind, saved = record["format"], dict(record["model"])
            stages = [[f and KeptFile(**f) for f in shard] for shard in record["stages"]]
            plan = KeptFile(**record["plan"])
            removed, digests = set(record["removed"]), [list(s) for s in record["rows"]]
            counts = int(record["shards"]), int(record["slices"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._no_state() from None
        if kind != FORMAT:
            raise InputError(
                f"sisa: a state of format {kind!r}, this version reads {FORMAT}; fit again"
            )
        for name in {**saved, **identity}:
            if saved.get(name) != identity.get(name):
                raise InputError(
                    f"sisa: a state of another model: {name} is {saved.get(name)!s:.80} there and"
                    f" {identity.get(name)!s:.80} here; give the settings it was fitted with"
                )
        self._written, self._plan_file = text, plan
        return ShardState(saved, self._plan(plan, *counts), removed, digests, stages)

    def plan(self) -> ShardPlan:
        """Return the plan of the state in the folder."""
        _, record = self._record()
        try:
            kept, counts = KeptFile(**record["plan"]), (record["shards"], record["slices"])
        except (KeyError, TypeError):
            raise self._no_state() from None
        return self._plan(kept, *counts)

    def _record(self) -> tuple[str, Any]:
        path, remedy = self.folder / NAME, "give the folder that fit wrote"
        text = read_text(path, "sisa", what=remedy, most=2**30)
        try:
            return text, json.loads(text)
        except ValueError:
            raise self._no_state() from None

    def _no_state(self) -> InputError:
        path = str(self.folder / NAME)
        return InputError(f"sisa: {path!r} is no state of shards; give the folder that fit wrote")

    def _keep_plan(self, plan: ShardPlan) -> KeptFile:
        tensors = {"ids": plan.ids, "shard": plan.shard, "slice_number": plan.slice_number}
        content = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
        kept = _named(content, "shard-plan")
        write_bytes(self.folder / kept.name, content)
        return kept

    def _plan(self, kept: KeptFile, shards: int, slices: int) -> ShardPlan:
        parts: dict[str, Positions] = load(self._content(kept))
        try:
            return ShardPlan(parts["ids"], parts["shard"], parts["slice_number"], shards, slices)
        except KeyError:
            raise InputError(f"sisa: {kept.name!r} is no plan of shards; fit again") from None

    def _content(self, kept: KeptFile) -> bytes:
        path = self.folder / Path(kept.name).name
        check_regular(path, "sisa", "fit again, or use a backup")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != kept.sha256:
            raise InputError(f"sisa: {str(path)!r} is not what was kept; use a backup or fit again")
        return content

    def _text(self) -> str | None:
        try:
            return (self.folder / NAME).read_text("utf-8")
        except OSError:
            return None

    def clean(self, state: ShardState) -> None:
        """Remove files of ours that the state does not name: models that saw removed rows."""
        named = {f.name for shard in state.stages for f in shard if f}
        named |= {self._plan_file.name} if self._plan_file else set()
        for path in (
            *self.folder.glob("shard-*.bin"),
            *self.folder.glob(".shard-*.part"),
            *self.folder.glob(f".{NAME}.*.part"),
        ):
            if path.name not in named:
                with suppress(OSError):
                    path.unlink()


def _named(content: bytes, prefix: str) -> KeptFile:
    digest = hashlib.sha256(content).hexdigest()
    return KeptFile(f"{prefix}-{digest[:16]}.bin", digest)
