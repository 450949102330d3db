"""Layouts of studies, kept in the cache folder: a study is shown again without torch.

To lay a study out takes seconds: torch is loaded, cases are read, and the key of every run is
computed. A layout is kept under its *proof*, the digest of all that decides it, and only where
nothing else does (``Layout.fixed``). So a kept one is right or is not found.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import unlearnkit
from unlearnkit.core.cache_folder import LAYOUTS, default_root
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_text
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.studies.columns import MetricColumn
from unlearnkit.studies.layout import Layout, lay_out
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.spec import Study

PACKAGE = Path(unlearnkit.__file__).parent

_OWN = ("key", "seed", "original_seed")
"""What differs between runs of one kind; all else is written once."""

_DISTRIBUTIONS = (".dist-info", ".egg-info", ".egg-link")
"""How the names end under which installed distributions leave their facts."""

_READ = ("UNLEARNKIT_", "PYTHONPATH", "OMP_", "MKL_")
"""How the names of environment variables begin that rows or their digests can depend on."""


def layout_of(study: Study) -> Layout:
    """Return the layout of a study: the kept one, or one that is made now and kept if it may be.

    Args:
        study: The study.

    Returns:
        The same as ``lay_out``. What is kept and cannot be read is made again.
    """
    name = proof(study)
    path = default_root() / LAYOUTS / f"{name}.json"
    found = _read(path)
    if found is None:
        found = lay_out(study)
        if found.fixed and proof(study) == name:  # no file was changed meanwhile
            with suppress(InputError):  # a folder that cannot be written keeps nothing
                write_text(path, _written(found))
    return found


def proof(study: Study, package: Path = PACKAGE, listing: Sequence[str] | None = None) -> str:
    """Return the digest of all that decides a fixed layout.

    The study, the files that it names, every file of this package, what is installed, Python, the
    machine, and the environment variables that play a part.

    Args:
        study: The study.
        package: The folder of this package.
        listing: What is installed; found out when None.

    Returns:
        A SHA-256.
    """
    sources = sorted(p for p in package.rglob("*") if "__pycache__" not in p.parts and p.is_file())
    here = platform.uname()
    parts = {
        "study": repr(study),
        "named": [(str(p), _digest(p)) for p in _named(study)],
        "package": [(p.relative_to(package).as_posix(), _digest(p)) for p in sources],
        "installed": list(installed() if listing is None else listing),
        "machine": [sys.version, here.system, here.node, here.machine, os.cpu_count()],
        "environment": sorted((k, v) for k, v in os.environ.items() if k.startswith(_READ)),
    }
    return sha256(json.dumps(parts).encode()).hexdigest()


def installed() -> list[str]:
    """Return every installed distribution, with its version, its place and its time."""
    found: list[str] = []
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError), os.scandir(folder or os.curdir) as entries:
            known = (e for e in entries if e.name.endswith(_DISTRIBUTIONS))
            found.extend(f"{e.path} {e.stat().st_mtime_ns}" for e in known)
    return sorted(found)


def _named(study: Study) -> Iterator[Path]:
    """Yield the files that a study names."""
    yield from (c.tuned for c in study.methods if c.tuned is not None)
    requests = [r for asked in study.requests.values() for r in asked]
    if study.tune is not None:
        yield from sorted(study.tune.recipes.glob("*.yaml"))
        requests += [r for asked in study.tune.requests.values() for r in asked]
    for request in requests:
        values = request.partition("=")[2]
        if values.startswith("@"):
            yield Path(values[1:])


def _digest(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _written(layout: Layout) -> str:
    """Return a layout as text, under the digest of the text."""
    kinds: dict[str, int] = {}
    runs = []
    for run in layout.runs:
        kind = {f.name: getattr(run, f.name) for f in fields(RunSpec)}
        own = [kind.pop(name) for name in _OWN]
        kind["mask"] = None if run.mask is None else run.mask.model_dump(mode="json")
        runs.append([kinds.setdefault(json.dumps(kind), len(kinds)), *own])
    measures = [m.model_dump(mode="json") for m in layout.measures.values()]
    content = {"kinds": [json.loads(k) for k in kinds], "runs": runs, "measures": measures}
    body = json.dumps(content)
    return f"{sha256(body.encode()).hexdigest()}\n{body}"


def _read(path: Path) -> Layout | None:
    """Return a kept layout; None where there is none, or not the one that was written."""
    try:
        told, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    if told != sha256(body.encode()).hexdigest():
        return None
    with suppress(OSError):
        os.utime(path)  # it was used: prune removes what was not
    content = json.loads(body)
    kinds = [_kind(k) for k in content["kinds"]]
    runs = (RunSpec(**kinds[k], **dict(zip(_OWN, own, strict=True))) for k, *own in content["runs"])
    measures = [MetricColumn.model_validate(m) for m in content["measures"]]
    return Layout(tuple(runs), {m.column.id: m for m in measures}, fixed=True)


def _kind(written: dict[str, Any]) -> dict[str, Any]:
    mask = written["mask"]
    return {**written, "mask": None if mask is None else MaskSpec.model_validate(mask)}
